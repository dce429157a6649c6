"""What is written of trained generators: cards, diagnoses, explorations, the reproduction."""
