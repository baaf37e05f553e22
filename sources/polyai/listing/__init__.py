"""Listings of conversations: Data API by offset, Conversations API v3 by cursor."""
