"""What `evaluation.compare` is made of: reading both sides, what moved, seeds as means, and how it is said."""
