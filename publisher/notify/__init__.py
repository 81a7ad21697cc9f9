"""Notifications of what a run changed: to services, and as signed webhooks.

model.py            events, messages, receivers (pure)
parse.py            read the configuration; every mistake is reported with its place
text.py             a message as the text that services show (pure)
webhook.py          send a message as signed JSON
service.py          send a message to a service, in a process of its own: service_process.py
delivery.py         all receivers side by side, within seconds; what was not delivered is kept
"""

from publisher.notify.model import (
    Event,
    InvalidNotifications,
    Kind,
    Message,
    Notifications,
    Run,
)

__all__ = [
    "Event",
    "InvalidNotifications",
    "Kind",
    "Message",
    "Notifications",
    "Run",
]
