"""Arriving posts, challenger against champion, and the history of both."""
