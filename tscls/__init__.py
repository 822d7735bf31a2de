"""What main_tscls.py is made of: inputs, recipes, training, scikit-learn estimators, evaluation."""
