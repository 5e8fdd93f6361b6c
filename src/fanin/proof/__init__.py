"""Proof: whether a remedy helps (prove) and what makes two settings differ (explain), by paired seeds.

Nothing is imported here, so that explaining recipes loads no torch. Take what is needed from its file: `prove` (prove),
`explain` (explain), `remedies` (remedy, apply, APPLY).
"""
