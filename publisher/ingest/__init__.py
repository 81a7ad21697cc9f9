"""Wishes become published images: ingest, plan and check."""
