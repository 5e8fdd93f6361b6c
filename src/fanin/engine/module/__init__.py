"""Trials of a user's own network: one at a time, by autograd, with the stacked engine's streams and records."""

from __future__ import annotations

from fanin.engine.module.loop import train as train
