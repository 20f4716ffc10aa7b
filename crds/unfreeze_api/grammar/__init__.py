"""What every part of the API is written in: models, rules, unions, fields, former names."""
