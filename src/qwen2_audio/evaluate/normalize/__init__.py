"""Texts made comparable before errors are counted, as the official evaluation makes them."""
