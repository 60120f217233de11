"""Rooms: furnished rooms with exact labels, ray-cast on the CPU from freely licensed furniture."""
