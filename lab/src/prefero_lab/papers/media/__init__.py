"""Generative media: diffusion on images and on sequences, flows, video, sound."""
