"""Connection state recovery: a state machine that cuts connections everywhere, over both transports.

Whatever happens, a client that the server calls recovered has seen every event for it exactly once and in
order; otherwise it is a new socket. `RECOVERY_RUNS=10000` and `--timeout 0` make more runs than a test needs.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from rfc6455_server import LimitExceededError, Server, coalesce, testing
from rfc6455_server.limits import LimitOptions
from rfc6455_server.policies import Policy
from rfc6455_server.socketio import ConnectError, DisconnectedError, Socket, SocketIO
from rfc6455_server.testing import ManualClock, TestClient
from tests.model_client import Loss, ModelClient, TransportName, come_to_rest

RUNS: Final = int(os.environ.get("RECOVERY_RUNS", "50"))
STEPS: Final = 40

# Everything is small, so that a few events fill it.
WINDOW: Final = 20.0
INTERVAL: Final = 10.0
TIMEOUT: Final = 5.0
MAX_QUEUE: Final = 8 << 10
PIPE: Final = 4 << 10
ROOMS: Final = ("red", "green", "blue", "grey")

transports = st.sampled_from(["websocket", "polling"])
losses = st.sampled_from(["fin", "reset", "vanish"])
picks = st.integers(0, 1000)  # one of those there are, modulo their number
rooms = st.sampled_from(ROOMS)


@dataclass(frozen=True)
class Config:
    """What differs between runs."""

    recovery_bytes: int = 4 << 20
    max_total_queue: int = 1 << 28
    join_rate: float | None = None
    middleware: bool = False


CONFIGS: Final = [
    Config(),
    Config(middleware=True),
    Config(recovery_bytes=8 << 10),
    Config(max_total_queue=60 << 10),
    Config(join_rate=1.0),
]


@dataclass(frozen=True)
class Emission:
    """``count`` events in one tick."""

    count: int
    size: int
    to: frozenset[str]
    """Rooms; ``"@"`` and a number is a socket's own id. Empty: all."""
    without: frozenset[str]
    policy: Literal["none", "volatile", "drop_oldest", "drop_newest", "coalesce"]
    binary: bool
    mimic: Literal["", "number", "echo"]
    """Whether an event that may be dropped ends with a string that looks like an offset, or is an old one."""


POLICIES: Final[dict[str, Policy]] = {
    "volatile": "volatile",
    "drop_oldest": "drop_oldest",
    "drop_newest": "drop_newest",
    "coalesce": coalesce("any"),
}

targets = st.frozensets(rooms | st.sampled_from(["@0", "@1", "@2"]), max_size=2)
emissions = st.builds(
    Emission,
    count=st.sampled_from([1, 1, 2, 30]),
    size=st.sampled_from([10, 10, 900, 12_000]),
    to=st.just(frozenset()) | targets,
    without=st.just(frozenset()) | targets,
    policy=st.sampled_from(["none", "none", "none", *POLICIES]),
    binary=st.booleans(),
    mimic=st.sampled_from(["", "number", "echo"]),
)


class Moment(NamedTuple):
    """A time, and how many bytes of events recovery had been given by then."""

    time: float
    logged: int


@dataclass
class Identity:
    """What a socket is to the model, connected or lost."""

    id: str
    born: int
    """The last event before it was connected."""
    rooms: set[str] = field(default_factory=set)
    due: list[int] = field(default_factory=list)
    """The events for it that must arrive, in order."""
    possible: set[int] = field(default_factory=set)
    """The events for it that may be missed."""
    ended: bool = False
    """Whether it was disconnected on purpose, and cannot come back."""
    left: set[str] = field(default_factory=set)
    foreign: int = 0
    """The last event that was not for it but for a room of it: the server may not tell that apart later."""
    contested: bool = False
    """Whether several clients claim to be it: what one does may make the server forget it."""


class Player(ModelClient):
    """A client that checks what it sees."""

    def __init__(self, machine: "Recovery") -> None:
        super().__init__(machine.test)
        self.machine = machine
        self.identity: Identity | None = None
        self.position = 0
        """How many of the events that are due it has seen."""
        self.last = 0
        """The last event that it has seen."""
        self.answered: set[int] = set()
        self.foreign_offset = False
        """Whether its offset is not that of the last event which had one."""
        self.expected = False
        """Whether the server must recover it."""
        self.forbidden = False
        """Whether the server must not recover it."""
        self.away_since: Moment | None = None
        """When it stopped reading or was cut."""
        self.last_due = 0
        """The last event that it has seen and that had to arrive, or the last one before it was connected."""
        self.spared = True
        """Whether nothing has happened since it was connected for which the server may end its session."""
        self.resumed = False
        """Whether it has just gone on reading: its session may have ended meanwhile."""

    def copy(self) -> "Player":
        """Returns another client that believes to be this one."""
        other = Player(self.machine)
        for name in (
            "private_id",
            "offset",
            "identity",
            "position",
            "last",
            "foreign_offset",
            "id",
            "last_due",
        ):
            setattr(other, name, getattr(self, name))
        other.answered = set(self.answered)
        other.spared = False
        return other

    def go_away(self) -> None:
        if self.away_since is None:
            self.away_since = self.machine.now()

    @property
    def is_quiet(self) -> bool:
        """Whether all events that it or its rooms were sent are those that it has seen."""
        many = self.machine.config.recovery_bytes >= 1 << 20  # with few bytes, few rooms are remembered
        return many and self.identity is not None and self.identity.foreign <= self.last_due

    def come_back(self, transport: TransportName) -> None:
        machine = self.machine
        machine.observe()
        rivals = [
            other for other in machine.players if other is not self and other.private_id == self.private_id
        ]
        self.expected = (
            self.identity is not None
            and not self.identity.contested
            and self.identity is machine.identities.get(self.private_id or "")
            and not self.identity.ended
            and not self.foreign_offset
            and machine.keeps(self.away_since)
            and (self.is_quiet or machine.keeps(machine.sent[self.last_due]))
        )
        self.forbidden = self.identity is not None and self.identity.ended
        self.spared = True
        for rival in rivals:
            rival.spared = False
        self.start(transport)

    def on_connect(self) -> None:
        machine = self.machine
        machine.observe()
        assert self.private_id is not None
        identity = machine.identities.get(self.private_id)
        machine.check(identity is not None, "CONNECT names a socket that the server does not have")
        before, self.identity = self.identity, identity
        if self.recovered:
            machine.check(before is identity, "recovered as another")
            machine.check(before is not None and before.id == self.id, "recovered with another id")
            machine.check(not self.forbidden, "recovered after a disconnect")
        else:
            machine.check(not self.expected, "not recovered, although nothing was lost")
            machine.check(before is None or before.id != self.id, "a new socket with the old id")
            self.position = self.last = 0
            self.answered.clear()
            self.foreign_offset = self.offset is not None
            self.last_due = identity.born if identity is not None else 0

    def on_event(self, name: str, arguments: list[Any]) -> Any:
        machine, identity = self.machine, self.identity
        number = arguments[1]
        if identity is None:
            machine.check(False, "an event before CONNECT")
            return None
        machine.check(number > self.last, f"{number} after {self.last}")
        self.last = number
        if number in machine.droppable:
            machine.check(number in identity.possible, f"{number} was not for it")
            if isinstance(arguments[-1], str):
                self.foreign_offset = len(arguments) == 3  # else the server has added an offset
        else:
            due = identity.due[self.position] if self.position < len(identity.due) else None
            machine.check(number == due, f"{number} instead of {due}")
            self.position += 1
            self.last_due = number
            self.foreign_offset = False
        self.answered.add(number)
        return number

    def on_loss(self) -> None:
        machine = self.machine
        fair = self.reading and self.spared and not self.resumed and machine.config.max_total_queue >= 1 << 28
        machine.check(not fair, "the server ended the session of a client that reads")
        self.go_away()


class Errors(logging.Handler):
    """Collects what the server logs as an error."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._problems = problems

    def emit(self, record: logging.LogRecord) -> None:
        self._problems.append(f"logged: {self.format(record)}")


class Recovery(RuleBasedStateMachine):
    """A server and its clients in memory, and a model of what each client must see."""

    config: Config

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.problems: list[str] = []
        self.players: list[Player] = []
        self.identities: dict[str, Identity] = {}
        self.order: list[Identity] = []
        self.droppable: set[int] = set()
        self.sent: dict[int, Moment] = {}
        self.number = 0
        self.kept = 0
        """How many events recovery was given."""
        self.logged = 0
        """Bytes of events that recovery keeps, at least what they cost."""
        self.questions: list[tuple[int, asyncio.Task[Any]]] = []
        self.said: set[int] = set()
        self.pipe, testing.PIPE_SIZE = testing.PIPE_SIZE, PIPE  # type: ignore[misc]
        self.errors = Errors(self.problems)
        logging.getLogger("rfc6455_server").addHandler(self.errors)
        self.loop.set_exception_handler(lambda _, context: self.problems.append(repr(context)))

    def check(self, holds: bool, problem: str) -> None:
        """Records a problem. The server would catch an exception that is raised where it calls."""
        if not holds:
            self.problems.append(problem)

    def run(self, work: Coroutine[Any, Any, Any]) -> None:
        """Does something, and lets everybody react; no time passes."""

        async def do() -> None:
            await work
            await self.settle()

        self.loop.run_until_complete(do())
        self.fail_if_wrong()

    def fail_if_wrong(self) -> None:
        assert not self.problems, "\n".join(self.problems)

    async def settle(self) -> None:
        await come_to_rest()
        self.observe()
        for socket in self.io.sockets.values():
            session = socket._client.session
            assert self.io._transports is not None
            self.check(self.io._transports.sessions.get(session.sid) is session, "a socket without a session")
        for player in self.players:
            player.resumed = False
            if player.connected and player.reading and player.identity is not None:
                player.away_since = None
                late = player.identity.due[player.position :]
                self.check(not late, f"{late} did not arrive, although the client reads")

    @initialize(config=st.sampled_from(CONFIGS))
    def begin(self, config: Config) -> None:
        self.config = config

        async def start() -> None:
            self.clock = ManualClock()
            self.io = SocketIO(
                ping_interval=INTERVAL,
                ping_timeout=TIMEOUT,
                recovery=WINDOW,
                recovery_bytes=config.recovery_bytes,
            )
            limits = LimitOptions(max_queue=MAX_QUEUE, max_total_queue=config.max_total_queue)
            if config.join_rate is not None:
                limits["join_rate"] = config.join_rate
            self.server = Server(clock=self.clock, **limits)
            self.server.mount(self.io)
            self.test = TestClient(self.server, self.clock)
            self.gate = asyncio.Event()
            self.register()
            await self.test.__aenter__()

        self.loop.run_until_complete(start())

    def register(self) -> None:
        io = self.io
        if self.config.middleware:

            @io.use
            async def check(socket: Socket) -> None:
                socket.join("admitted")
                await asyncio.sleep(0)
                if socket.handshake.auth.get("refuse"):
                    raise ConnectError("no")

        @io.on("connect")
        async def connected(socket: Socket) -> None:
            self.observe()
            if socket.connected:
                self.check_rooms(socket)

        @io.on("say")
        async def say(socket: Socket, number: int, emission: int) -> None:
            self.check(number not in self.said, "an event from a client twice")
            self.said.add(number)
            self.number += 1
            self.aim(frozenset(), frozenset([socket.id]), self.number, droppable=False, size=0)
            socket.broadcast.emit("event", "", self.number)

        @io.on("slow")
        async def slow(socket: Socket) -> None:
            await self.gate.wait()

    # The model.

    def now(self) -> Moment:
        return Moment(self.clock.time(), self.logged)

    def keeps(self, since: Moment | None) -> bool:
        """Whether recovery must still keep all events since then."""
        if since is None:
            return False
        now = self.now()
        return now.time - since.time <= WINDOW and now.logged - since.logged <= self.config.recovery_bytes

    def observe(self) -> None:
        """Notes the sockets that are new."""
        for socket in self.io.sockets.values():
            if socket.private_id not in self.identities:
                rooms = {"admitted"} if self.config.middleware else set()
                identity = Identity(socket.id, self.number, rooms)
                self.sent.setdefault(self.number, self.now())
                self.identities[socket.private_id] = identity
                self.order.append(identity)

    def check_rooms(self, socket: Socket) -> None:
        expected = self.identities[socket.private_id].rooms | {socket.id}
        self.check(socket.rooms == expected, f"rooms {socket.rooms} instead of {expected}")

    def names(self, rooms: frozenset[str]) -> frozenset[str]:
        """Returns names of rooms, with ids of sockets for ``"@"`` and a number."""
        return frozenset(
            name if name[0] != "@" else self.order[int(name[1:]) % len(self.order)].id if self.order else name
            for name in rooms
        )

    def aim(
        self, to: frozenset[str], without: frozenset[str], number: int, *, droppable: bool, size: int
    ) -> None:
        """Notes whom an event is for."""
        self.observe()
        if droppable:
            self.droppable.add(number)
        else:
            self.logged += 3 * size + 4000
            self.kept += 1
        self.sent[number] = self.now()
        for identity in self.order:
            inside = {identity.id, *identity.rooms}
            if identity.ended or (to and not to & inside) or without & inside:
                if not droppable and (not to or to & (inside | identity.left)):
                    identity.foreign = number
                continue
            if droppable:
                identity.possible.add(number)
            else:
                identity.due.append(number)

    def emit(self, emission: Emission) -> None:
        to, without = self.names(emission.to), self.names(emission.without)
        target = (self.io.to(*to) if to else self.io.everybody()).except_(*without)
        droppable = emission.policy != "none"
        if droppable:
            target = target.with_policy(POLICIES[emission.policy])
        filler: Any = bytes(emission.size) if emission.binary else "x" * emission.size
        for _ in range(emission.count):
            self.number += 1
            self.aim(to, without, self.number, droppable=droppable, size=emission.size)
            ending = []
            if emission.mimic and droppable:
                seen = [player.offset for player in self.players if player.offset]
                echoes = seen[:1] if emission.mimic == "echo" else []
                ending = echoes or [f"{max(1, self.kept - 1):x}"]
            target.emit("event", filler, self.number, *ending)

    # Choosing.

    def some(self, condition: Callable[[Player], bool]) -> list[Player]:
        return [player for player in self.players if condition(player)]

    def pick(self, number: int, condition: Callable[[Player], bool]) -> Player:
        found = self.some(condition)
        return found[number % len(found)]

    # Rules: clients come and go.

    @precondition(lambda self: len(self.players) < 4)
    @rule(transport=transports, refuse=st.sampled_from([False, False, False, True]))
    def arrive(self, transport: TransportName, refuse: bool) -> None:
        async def act() -> None:
            player = Player(self)
            player.start(transport)
            if refuse and self.config.middleware:
                player.auth = {"refuse": True}
                player.spared = False
            else:
                self.players.append(player)

        self.run(act())

    @precondition(lambda self: self.some(lambda p: not p.open))
    @rule(which=picks, transport=transports, unread=st.booleans(), again=st.none() | losses)
    def come_back(self, which: int, transport: TransportName, unread: bool, again: Loss | None) -> None:
        """A client comes back. ``unread``: it reads nothing after it has sent CONNECT. ``again``: it loses
        this connection too, and comes back once more."""

        async def act() -> None:
            player = self.pick(which, lambda p: not p.open)
            player.reading = True
            player.stall_after_connect = unread
            player.come_back(transport)
            if again is not None:
                await come_to_rest()
                if player.open:
                    player.go_away()
                    player.cut(again)
                player.reading, player.stall_after_connect = True, False
                player.come_back(transport)

        self.run(act())

    @precondition(lambda self: self.some(lambda p: p.open))
    @rule(
        which=picks, how=losses, keep=st.sampled_from([0, 0, 1, 3, 10, 100, 500, 5000]) | st.integers(0, 6000)
    )
    def cut(self, which: int, how: Loss, keep: int) -> None:
        """A connection is cut. If the client has stopped reading, it sees ``keep`` more bytes before."""

        async def act() -> None:
            player = self.pick(which, lambda p: p.open)
            player.go_away()
            if not player.reading and keep:
                await player.take(keep)
            player.cut(how)

        self.run(act())

    @precondition(lambda self: self.some(lambda p: p.open))
    @rule(which=picks, how=losses, burst=st.lists(emissions, min_size=1, max_size=3))
    def cut_in_a_burst(self, which: int, how: Loss, burst: list[Emission]) -> None:
        async def act() -> None:
            player = self.pick(which, lambda p: p.open)
            player.go_away()
            for emission in burst:
                self.emit(emission)
            player.cut(how)

        self.run(act())

    @precondition(lambda self: self.some(_can_say))
    @rule(which=picks, how=losses, limit=st.sampled_from([0, 1, 5, 40, 10_000]) | st.integers(0, 300))
    def cut_while_sending(self, which: int, how: Loss, limit: int) -> None:
        async def act() -> None:
            player = self.pick(which, _can_say)
            player.go_away()
            self.number += 1
            player.cut_while_sending(how, limit, "say", self.number, 0)

        self.run(act())

    @precondition(lambda self: self.some(lambda p: p.connected and p.identity is not None))
    @rule(which=picks, transport=transports)
    def two_claim_to_be_one(self, which: int, transport: TransportName) -> None:
        """A second connection sends the ids of a client that is connected."""

        async def act() -> None:
            player = self.pick(which, lambda p: p.connected and p.identity is not None)
            player.go_away()
            other = player.copy()
            assert player.identity is not None
            player.identity.contested = True
            other.away_since = player.away_since
            self.players.append(other)
            other.come_back(transport)

        if len(self.players) < 6:
            self.run(act())

    @precondition(lambda self: self.some(lambda p: p.connected))
    @rule(which=picks, by_client=st.booleans())
    def disconnect(self, which: int, by_client: bool) -> None:
        async def act() -> None:
            player = self.pick(which, lambda p: p.connected)
            socket = self.io.sockets.get(player.id or "")
            if by_client and _can_say(player):
                player.leave()
                await come_to_rest()
                if player.identity is not None and socket is not None and not socket.connected:
                    player.identity.ended = True
                player.cut("fin")
                player.go_away()
            elif socket is not None and player.identity is not None:
                for other in self.players:
                    other.spared &= other.identity is not player.identity
                player.identity.ended = True
                socket.disconnect()

        self.run(act())

    # Rules: transports.

    @precondition(lambda self: self.some(lambda p: p.can_upgrade))
    @rule(which=picks, stall=st.booleans())
    def upgrade(self, which: int, stall: bool) -> None:
        async def act() -> None:
            player = self.pick(which, lambda p: p.can_upgrade)
            player.upgrade()
            if stall:
                self.stop_reading(player)

        self.run(act())

    @precondition(lambda self: self.some(lambda p: p.upgrading != "no"))
    @rule(which=picks, how=losses)
    def cut_the_probe(self, which: int, how: Loss) -> None:
        async def act() -> None:
            self.pick(which, lambda p: p.upgrading != "no").drop_probe(how)

        self.run(act())

    # Rules: reading slowly.

    def stop_reading(self, player: Player) -> None:
        player.go_away()
        player.stall()

    @precondition(lambda self: self.some(lambda p: p.open and p.reading))
    @rule(which=picks)
    def stall(self, which: int) -> None:
        async def act() -> None:
            self.stop_reading(self.pick(which, lambda p: p.open and p.reading))

        self.run(act())

    @precondition(lambda self: self.some(lambda p: p.open and not p.reading))
    @rule(which=picks)
    def go_on(self, which: int) -> None:
        async def act() -> None:
            self.resume(self.pick(which, lambda p: p.open and not p.reading))

        self.run(act())

    def resume(self, player: Player) -> None:
        player.stall_after_connect = False
        player.resumed = True
        player.go_on()

    @precondition(lambda self: self.some(lambda p: p.open and not p.reading))
    @rule(which=picks, limit=st.integers(1, 6000))
    def read_a_little(self, which: int, limit: int) -> None:
        async def act() -> None:
            await self.pick(which, lambda p: p.open and not p.reading).take(limit)

        self.run(act())

    # Rules: events.

    @rule(burst=st.lists(emissions, min_size=1, max_size=4))
    def emit_in_one_tick(self, burst: list[Emission]) -> None:
        async def act() -> None:
            for emission in burst:
                self.emit(emission)

        self.run(act())

    @precondition(lambda self: self.io.sockets)
    @rule(which=picks, everybody=st.booleans())
    def ask(self, which: int, everybody: bool) -> None:
        async def act() -> None:
            self.number += 1
            sockets = list(self.io.sockets.values())
            socket = sockets[which % len(sockets)]
            to = frozenset() if everybody else frozenset([socket.id])
            self.aim(to, frozenset(), self.number, droppable=True, size=0)
            if everybody:
                asking = self.io.emit_with_ack("question", "", self.number)
            else:
                asking = socket.emit_with_ack("question", "", self.number)
            self.questions.append((self.number, self.loop.create_task(asking)))
            await come_to_rest()
            reading = {player.id for player in self.players if player.reading and player.connected}
            if to <= reading and not everybody:
                self.check(self.questions[-1][1].done(), "an acknowledgement did not arrive")

        self.run(act())

    @precondition(lambda self: self.some(_can_say))
    @rule(which=picks, slow=st.booleans())
    def say(self, which: int, slow: bool) -> None:
        async def act() -> None:
            player = self.pick(which, _can_say)
            self.number += 1
            if slow:
                player.emit("slow")
            player.emit("say", self.number, 0)

        self.run(act())

    @rule()
    def let_slow_handlers_end(self) -> None:
        async def act() -> None:
            self.gate.set()
            await come_to_rest()
            self.gate.clear()

        self.run(act())

    # Rules: rooms and time.

    @precondition(lambda self: self.io.sockets)
    @rule(
        which=picks,
        names=st.sets(rooms, min_size=1),
        join=st.booleans(),
        news=st.none() | emissions,
        how=st.none() | losses,
    )
    def change_rooms(
        self, which: int, names: set[str], join: bool, news: Emission | None, how: Loss | None
    ) -> None:
        """A socket joins or leaves rooms, to which ``news`` is sent before. Its connection may be cut."""

        async def act() -> None:
            self.observe()
            sockets = list(self.io.sockets.values())
            socket = sockets[which % len(sockets)]
            identity = self.identities[socket.private_id]
            if news is not None:
                self.emit(replace(news, to=frozenset(names)))
            change(socket, identity)
            for player in self.some(lambda p: p.open and p.identity is identity):
                if how is not None:
                    player.go_away()
                    player.cut(how)

        def change(socket: Socket, identity: Identity) -> None:
            if not socket.connected:
                return  # too much was sent to it
            for name in names:
                if not join:
                    socket.leave(name)
                    if name in identity.rooms:
                        identity.rooms.remove(name)
                        identity.left.add(name)
                        identity.foreign = self.number
                    continue
                try:
                    socket.join(name)
                except LimitExceededError:
                    self.check(self.config.join_rate is not None, "refused to join")
                    return
                identity.rooms.add(name)
            self.check_rooms(socket)

        self.run(act())

    @rule(seconds=st.sampled_from([0.5, 4.0, 6.0, 11.0, 16.0, 19.0, 21.0, 60.0]))
    def advance(self, seconds: float) -> None:
        self.run(self.clock.advance(seconds))

    # The end.

    async def finish(self) -> None:
        self.gate.set()
        for player in self.players:
            if player.open and not player.reading:
                self.resume(player)
        await self.settle()
        for index, player in enumerate(self.players):
            if not player.open:
                player.reading, player.stall_after_connect = True, False
                player.come_back("websocket" if index % 2 else "polling")
                await self.settle()
        for socket in self.io.sockets.values():
            self.check_rooms(socket)
        for index, player in enumerate(self.players):
            if index % 3 == 0:
                player.cut("vanish")
            elif player.open:
                player.close()
        await self.clock.advance(INTERVAL + TIMEOUT + WINDOW + 60)
        await come_to_rest()
        for number, question in self.questions:
            self.check(question.done(), "a question without an end")
            if question.done():
                self.check_answers(number, question)
        transports = self.io._transports
        assert transports is not None
        left = [self.io.sockets, transports.sessions, list(self.io.rooms), self.server.websockets]
        self.check(not any(left), f"left at the end: {left}")
        self.check(self.server.queued == 0, f"queued at the end: {self.server.queued}")

    def check_answers(self, number: int, question: "asyncio.Task[Any]") -> None:
        error = question.exception()
        if error is not None:
            self.check(isinstance(error, DisconnectedError), repr(error))
            return
        answers = question.result() if isinstance(question.result(), list) else [question.result()]
        seen = sum(1 for player in self.players if number in player.answered)
        self.check(set(answers) <= {number}, f"{answers} instead of {number}")
        self.check(len(answers) <= max(seen, len(self.order)), "more answers than clients")

    def teardown(self) -> None:
        try:
            if hasattr(self, "test"):
                if not self.problems:
                    self.loop.run_until_complete(self.finish())
                self.gate.set()
                self.loop.run_until_complete(self.test.__aexit__(None, None, None))
            self.fail_if_wrong()
        finally:
            testing.PIPE_SIZE = self.pipe  # type: ignore[misc]
            logging.getLogger("rfc6455_server").removeHandler(self.errors)
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()


def _can_say(player: Player) -> bool:
    """Whether a client can send an event at once."""
    return player.connected and player.upgrading == "no" and player._post is None


TestRecovery = Recovery.TestCase
TestRecovery.settings = settings(
    max_examples=RUNS,
    stateful_step_count=STEPS,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
