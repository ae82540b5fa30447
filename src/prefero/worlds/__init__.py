"""Small seeded tasks with a known gold reward, on which methods can be judged in minutes on a CPU."""
