"""Runs that are killed at chosen and at random moments, and must end as the run that nobody touched.

``make endurance``, or in short ``python -m endurance --short`` with ``tests`` on the path. One process imports
everything once and forks a child for each attempt (``processes``); the child arms a moment (``moments``) and runs the
command line in its own folder (``jobs``); what is there in the end is compared (``contents``).
"""
