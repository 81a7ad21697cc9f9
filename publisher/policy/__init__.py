"""Decide which wishes may be published, by the rules of a policy file. Pure.

model.py   the rules of a policy, in general and for each owner of wishes
parse.py   read a policy file; every mistake is reported with its place
rules.py   what violates the rules, from facts about wishes and images
keys.py    verify signatures; cosign.py: what they sign
"""

from publisher.policy.model import InvalidPolicy, PolicyFile, Violation
from publisher.policy.parse import MAX_BYTES, parse_policy

__all__ = ["MAX_BYTES", "InvalidPolicy", "PolicyFile", "Violation", "parse_policy"]
