"""The services: calls are admitted, answered and ended here."""
