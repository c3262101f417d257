"""Estimates from recorded samples; nothing here sees a model."""
