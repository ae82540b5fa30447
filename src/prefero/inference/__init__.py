"""What a trained model and its heads are good for when training is over."""
