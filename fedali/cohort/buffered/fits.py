"""Which methods can be trained in steps of a buffer."""

from __future__ import annotations

from fedali.methods.base import Method


def why_not(method: Method) -> str:
    """Why a method cannot; empty where it can.

    >>> from fedali.methods import build_method
    >>> why_not(build_method("ditto")), why_not(build_method("scaffold"))
    ('', 'its server does more than average models')
    """
    if method.uses_prototypes or method.prototypes is not None:
        return "its prototypes are aligned to those that a round began with"
    if type(method).aggregate is not Method.aggregate:
        return "its server does more than average models"
    if method.answer == "gate":
        return "its gate mixes the states that a round began and ended with"
    return ""
