"""The event log: every event kept, in order, and what one wants from that."""

from headgate.eventlog.access import Access, accesses, note_access
from headgate.eventlog.archive import Archived, archive, discard
from headgate.eventlog.events import Event
from headgate.eventlog.explain import Step, explain
from headgate.eventlog.export import export_lines
from headgate.eventlog.fork import Forked, fork
from headgate.eventlog.groups import Group
from headgate.eventlog.log import EventLog
from headgate.eventlog.log_types import Append, StreamInfo
from headgate.eventlog.masking import ERASED, SEALED, Policy
from headgate.eventlog.parking import Parked
from headgate.eventlog.planning import Appended
from headgate.eventlog.projection import Folded, Projection
from headgate.eventlog.projector import Lag, Projector
from headgate.eventlog.readers import Reader, readers
from headgate.eventlog.reading import Reading
from headgate.eventlog.record import Page, Recorded
from headgate.eventlog.registry import Types
from headgate.eventlog.replay import Difference, EntityChange, FieldChange, OutputChange, compare, compare_handlers
from headgate.eventlog.reverse import reverse, reverse_correlation, reverse_stream
from headgate.eventlog.verify import Damage, Verified, verify

__all__ = [
    "ERASED",
    "SEALED",
    "Access",
    "Append",
    "Appended",
    "Archived",
    "Damage",
    "Difference",
    "EntityChange",
    "Event",
    "EventLog",
    "FieldChange",
    "Folded",
    "Forked",
    "Group",
    "Lag",
    "OutputChange",
    "Page",
    "Parked",
    "Policy",
    "Projection",
    "Projector",
    "Reader",
    "Reading",
    "Recorded",
    "Step",
    "StreamInfo",
    "Types",
    "Verified",
    "accesses",
    "archive",
    "compare",
    "compare_handlers",
    "discard",
    "explain",
    "export_lines",
    "fork",
    "note_access",
    "readers",
    "reverse",
    "reverse_correlation",
    "reverse_stream",
    "verify",
]
