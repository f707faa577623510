"""What a Keras model takes, returns and is made of."""
