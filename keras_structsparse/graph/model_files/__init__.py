"""The model files of users: what a file holds, and how the model in it is loaded."""
