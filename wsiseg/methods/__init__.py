"""Methods: recipes that turn labelled stores into predictors."""
