"""Generated from ``proto/fedali/v1`` by ``make proto``: do not edit."""
