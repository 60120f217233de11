"""The ray caster that draws labelled scenes."""
