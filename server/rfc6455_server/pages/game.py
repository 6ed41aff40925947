"""A small shared world: each player is a dot that collects coins; bumping into someone richer takes one.

The server decides everything. Players send the direction in which they steer, and are sent the world 30 times
a second.
"""

import asyncio
import math
import random
from dataclasses import dataclass
from typing import Annotated, Final, TypedDict

from rfc6455_server.policies import coalesce
from rfc6455_server.socketio import Bounds, ConnectError, Socket, SocketIO

SIZE: Final = 1000.0
"""Width and height of the world."""

RATE: Final = 30
"""Steps per second."""

SPEED: Final = 320.0
"""Distance that a player moves per second."""

REACH: Final = 28.0
"""Maximum distance at which a player takes a coin, or bumps into another player."""

COINS: Final = 6
GOAL: Final = 10
"""Coins that win a round; then everybody starts again without coins."""

MAX_PLAYERS: Final = 50
SAFE: Final = 1.0
"""Seconds after a bump during which nothing can be taken from either player."""


Direction = Annotated[float, Bounds(ge=-1, le=1)]


class Picture(TypedDict):
    """What clients draw: each player's name, place and coins, by id, and the places of coins."""

    players: dict[str, tuple[str, int, int, int]]
    coins: list[tuple[int, int]]


@dataclass
class Player:
    """A player's dot. ``dx`` and ``dy`` are the direction; ``safe`` counts down seconds."""

    name: str
    x: float
    y: float
    dx: float = 0.0
    dy: float = 0.0
    coins: int = 0
    safe: float = 0.0

    def move(self, seconds: float) -> None:
        """Moves in its direction, but not beyond the edges of the world."""
        self.x = min(SIZE, max(0.0, self.x + self.dx * SPEED * seconds))
        self.y = min(SIZE, max(0.0, self.y + self.dy * SPEED * seconds))
        self.safe = max(0.0, self.safe - seconds)

    def near(self, x: float, y: float) -> bool:
        """Whether the dot reaches that place."""
        return math.hypot(self.x - x, self.y - y) < REACH


class World:
    """The rules, without any network."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)  # noqa: S311 - no secret, a game
        self.players: dict[str, Player] = {}
        self.coins = [self._somewhere() for _ in range(COINS)]

    def _somewhere(self) -> tuple[float, float]:
        return self._random.uniform(50, SIZE - 50), self._random.uniform(50, SIZE - 50)

    def add(self, id_: str, name: str) -> Player:
        """Adds a player at a random place."""
        self.players[id_] = player = Player(name, *self._somewhere())
        return player

    def step(self, seconds: float) -> str | None:
        """Moves the world by that time; returns the winner's name if the round is won."""
        for player in self.players.values():
            player.move(seconds)
            for index, (x, y) in enumerate(self.coins):
                if player.near(x, y):
                    player.coins += 1
                    self.coins[index] = self._somewhere()
        players = list(self.players.values())
        for one in players:
            for other in players:
                if one.coins < other.coins and not other.safe and one.near(other.x, other.y):
                    one.coins, other.coins = one.coins + 1, other.coins - 1
                    one.safe = other.safe = SAFE
        winner = next((player.name for player in players if player.coins >= GOAL), None)
        if winner is not None:
            for player in players:
                player.coins = 0
        return winner

    def picture(self) -> Picture:
        return {
            "players": {
                id_: (player.name, round(player.x), round(player.y), player.coins)
                for id_, player in self.players.items()
            },
            "coins": [(round(x), round(y)) for x, y in self.coins],
        }


def add_game(io: SocketIO) -> None:
    """Adds the namespace ``/game``."""
    game = io.of("/game")
    world = World()
    dots: dict[Socket, Player] = {}

    @game.emits("world")
    def world_event(picture: Picture) -> None:
        """The world, 30 times a second."""

    @game.emits("won")
    def won_event(name: str) -> None:
        """Somebody has won the round."""

    playing = False

    async def play() -> None:
        nonlocal playing
        if playing:
            return
        playing = True
        while world.players:
            winner = world.step(1 / RATE)
            # A player who is behind gets the newest picture, and no older ones.
            world_event.emit(game.to("world").with_policy(coalesce("world")), world.picture())
            if winner is not None:
                won_event.emit(game.to("world"), winner)
            await asyncio.sleep(1 / RATE)
        playing = False

    @game.use
    def check(socket: Socket) -> None:
        if len(game.sockets) >= MAX_PLAYERS:
            raise ConnectError("the world is full")
        socket.data["name"] = str(socket.handshake.auth.get("name") or "").strip()[:20] or "dot"

    @game.on("connect")
    def connected(socket: Socket) -> None:
        dots[socket] = world.add(socket.id, socket.data["name"])
        socket.join("world")
        io.spawn(play())

    @game.on("steer")
    def steer(socket: Socket, dx: Direction, dy: Direction) -> None:
        """Changes the direction of this player's dot."""
        player = world.players.get(socket.id)
        if player is None:
            return
        length = max(1.0, math.hypot(dx, dy))
        player.dx, player.dy = dx / length, dy / length

    @game.on("echo")
    def echo(_: Socket) -> bool:
        """Answers at once: the page measures the round trip."""
        return True

    @game.on("disconnect")
    def gone(socket: Socket, _: str) -> None:
        # A recovered player with the same id may have a new dot by now.
        if world.players.get(socket.id) is dots.pop(socket, None):
            world.players.pop(socket.id, None)
