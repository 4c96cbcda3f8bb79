"""A released folder: synthetic images, the generator, and in words what was promised about the records behind them."""
