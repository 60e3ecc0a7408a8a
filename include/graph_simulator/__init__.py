"""A local Graph API that keeps Meta's rules, with faults on demand.

A real HTTP server for tests, dry runs and the demo. It reads Meta's rules again, on its
own, from our reference: of `meta_capi` it knows `spec` and nothing else, so that a
fault in the sender shows here. It is not Meta: where Meta is silent or contradicts
itself, a switch stands, and every choice is marked in the code.

    with Simulator(datasets=["1234567890"], tokens=["EAAB..."]) as sim:
        ...  # POST to f"{sim.url}/v26.0/1234567890/events"
        sim.faults.add(Fault(kind=FaultKind.STATUS, status=503, processed=True))
        assert sim.counts("1234567890").processed == 1_000
"""

from graph_simulator.access import Token
from graph_simulator.faults import Fault, FaultKind
from graph_simulator.records import Counts, Receipt, Received
from graph_simulator.server import Simulator
from graph_simulator.switches import Profile, Switches

__all__ = [
    "Counts",
    "Fault",
    "FaultKind",
    "Profile",
    "Receipt",
    "Received",
    "Simulator",
    "Switches",
    "Token",
]
