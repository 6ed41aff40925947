"""The server side of the pages: their rules, and clients that break them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from rfc6455_server import Server
from rfc6455_server.pages import add_pages
from rfc6455_server.pages.chat import HISTORY, MAX_IMAGE, MAX_ROOM_BYTES, MAX_ROOMS, Person, Room, add_chat
from rfc6455_server.pages.game import GOAL, SIZE, Player, World
from rfc6455_server.socketio import SocketIO
from rfc6455_server.testing import ManualClock, TestClient, settle
from tests.server_helpers import until
from tests.test_socketio_server import Client

# The game.


def test_players_stay_in_the_world() -> None:
    player = Player("a", 10, 990, dx=-1, dy=1)
    player.move(1)
    assert (player.x, player.y) == (0, SIZE)
    player.dx, player.dy = 1, 0
    player.move(0.5)
    assert player.x > 100


def test_a_collected_coin_moves_to_another_place() -> None:
    world = World(seed=1)
    player = world.add("a", "Ann")
    player.x, player.y = world.coins[2]
    before = world.coins[2]
    assert world.step(0) is None
    assert player.coins >= 1
    assert world.coins[2] != before


def test_a_collision_with_a_richer_player_takes_one_coin() -> None:
    world = World(seed=1)
    poor, rich = world.add("a", "Ann"), world.add("b", "Bob")
    world.coins = []
    poor.x = rich.x = poor.y = rich.y = 500
    rich.coins = 5
    for _ in range(3):
        world.step(0.01)
    assert (poor.coins, rich.coins) == (1, 4)
    world.step(1.1)
    world.step(0.01)
    assert (poor.coins, rich.coins) == (2, 3)


def test_the_first_player_with_enough_coins_wins_and_a_new_round_starts() -> None:
    world = World(seed=1)
    ann, bob = world.add("a", "Ann"), world.add("b", "Bob")
    world.coins = []
    ann.x, bob.x = 0, 900
    ann.coins, bob.coins = GOAL, 3
    assert world.step(0) == "Ann"
    assert (ann.coins, bob.coins) == (0, 0)
    picture = world.picture()
    assert set(picture["players"]) == {"a", "b"}
    assert json.dumps(picture)


# The history of the chat.

ANN: Person = {"id": "a", "name": "Ann"}


def test_the_history_of_a_room_is_limited_in_messages_and_bytes() -> None:
    room = Room()
    for number in range(HISTORY + 10):
        assert room.add(ANN, {"text": str(number)}, f"key {number}") is not None
    assert [message["text"] for message in room.messages][:1] == ["10"]
    assert room.add(ANN, {"text": "again"}, "key 55") is None
    assert [message["number"] for message in room.after(HISTORY + 8)] == [HISTORY + 9, HISTORY + 10]
    for number in range(5):
        room.add(ANN, {"image": bytes(MAX_ROOM_BYTES // 2)}, f"image {number}")
    assert sum("image" in message for message in room.messages) == 2


def test_the_least_recently_used_room_is_removed() -> None:
    chat = add_chat(SocketIO())
    first = chat.room("first")
    for number in range(MAX_ROOMS - 1):
        chat.room(str(number))
    assert chat.room("first") is first
    chat.room("one more")
    chat.room("and one")
    assert chat.room("first") is first
    assert chat.room("0").number == 0


# Messages of clients.


@asynccontextmanager
async def pages(namespace: str) -> AsyncIterator[tuple[Server, Any]]:
    clock = ManualClock()
    server = Server(clock=clock)
    add_pages(server)
    async with TestClient(server, clock) as test:

        async def client(auth: object = None) -> Client:
            opened = await Client.open(test, namespace=namespace, auth=auth)
            assert (await opened.recv()).startswith(f"40{namespace},")
            return opened

        yield server, client


async def ask(client: Client, namespace: str, id_: int, *data: object) -> Any:
    """Sends an event, with attachments for bytes, and returns its acknowledgement; skips events before it."""
    attachments = [item for item in data if isinstance(item, bytes)]
    places = iter(range(len(attachments)))
    plain = [
        {"_placeholder": True, "num": next(places)} if isinstance(item, bytes) else item for item in data
    ]
    head = f"45{len(attachments)}-" if attachments else "42"
    client.say(f"{head}{namespace},{id_}{json.dumps(plain)}", *attachments)
    while True:
        message = await client.recv()
        start = f"43{namespace},{id_}["
        if isinstance(message, str) and message.startswith(start):
            return json.loads(message[len(start) - 1 :])


def is_refused(answer: list[Any]) -> bool:
    """Whether the server says no: by its rules, or because a type is wrong."""
    return answer in ([], [False]) or answer[0]["error"]["code"] == "invalid"


@pytest.mark.parametrize("room", ["", " ", 5, None, "x" * 41, ["a"]])
async def test_rooms_and_names_are_checked(room: object) -> None:
    async with pages("/chat") as (_, client):
        ann = await client()
        assert is_refused(await ask(ann, "/chat", 1, "join", room, "Ann"))
        assert is_refused(await ask(ann, "/chat", 2, "join", "lobby", room))
        assert await ask(ann, "/chat", 3, "say", "key", "not in a room") == [False]


async def test_messages_are_checked_and_sent_once() -> None:
    async with pages("/chat") as (_, client):
        ann = await client()
        (answer,) = await ask(ann, "/chat", 1, "join", "lobby", "Ann")
        assert [person["name"] for person in answer["people"]] == ["Ann"]
        bad: list[list[object]] = [["", "x"], ["k", ""], ["k", 5], ["k", "x" * 3000], [None, "x"]]
        for number, arguments in enumerate(bad):
            assert is_refused(await ask(ann, "/chat", 10 + number, "say", *arguments))
        for number in range(3):
            assert await ask(ann, "/chat", 20 + number, "say", "key", "once") == [True]
        bob = await client()
        (answer,) = await ask(bob, "/chat", 1, "join", "lobby", "Bob")
        assert [message["text"] for message in answer["messages"]] == ["once"]
        seen, epoch = answer["messages"][0]["number"], answer["epoch"]
        (again,) = await ask(bob, "/chat", 2, "join", "lobby", "Bob", seen, epoch)
        assert again["messages"] == []
        (other,) = await ask(bob, "/chat", 3, "join", "lobby", "Bob", seen, "of another server")
        assert len(other["messages"]) == 1
        assert await ask(bob, "/chat", 4, "direct", answer["people"][0]["id"], "psst") == [True]
        for to in ("nobody", 5, None):
            assert is_refused(await ask(bob, "/chat", 5, "direct", to, "psst"))


async def test_the_pieces_of_an_image_are_checked() -> None:
    async with pages("/chat") as (_, client):
        ann = await client()
        assert await ask(ann, "/chat", 1, "image", "k", "image/png", 2, 0, b"ab") == [False]
        await ask(ann, "/chat", 2, "join", "lobby", "Ann")
        bad: list[tuple[object, ...]] = [
            ("k", "image/svg+xml", 2, 0, b"ab"),
            ("k", "text/html", 2, 0, b"ab"),
            ("k", "image/png", MAX_IMAGE + 1, 0, b"ab"),
            ("k", "image/png", 0, 0, b""),
            ("k", "image/png", 2, 0, "no bytes"),
            ("k", "image/png", 2, 1, b"b"),
            ("k", "image/png", 1, 0, b"ab"),
            ("", "image/png", 2, 0, b"ab"),
        ]
        for number, arguments in enumerate(bad):
            assert is_refused(await ask(ann, "/chat", 10 + number, "image", *arguments))
        assert await ask(ann, "/chat", 30, "image", "k", "image/png", 4, 0, b"ab") == [True]
        assert await ask(ann, "/chat", 31, "image", "other", "image/png", 4, 2, b"cd") == [False]
        assert await ask(ann, "/chat", 32, "image", "k", "image/png", 4, 2, b"cd") == [True]
        bob = await client()
        bob.say('42/chat,1["join","lobby","Bob"]')
        answer = await bob.recv()
        assert answer.startswith("461-/chat,1[")
        assert '"type":"image/png"' in answer
        assert await bob.recv() == b"abcd"


@pytest.mark.parametrize(
    "direction", [[1, 0], [0.5, -0.5], [2, 0], ["1", 0], [None, 0], [10**400, 0], [True, 0]]
)
async def test_steering_accepts_only_directions(direction: list[object]) -> None:
    async with pages("/game") as (_, client):
        ann = await client({"name": "Ann"})
        ann.say("42/game," + json.dumps(["steer", *direction]))
        while True:
            event = json.loads((await ann.recv()).removeprefix("42/game,"))
            if event[0] == "world":
                break
        ((name, *_),) = event[1]["players"].values()
        assert name == "Ann"


async def test_one_loop_runs_for_all_clients() -> None:
    async with pages("/ticker") as (server, client):
        for _ in range(5):
            ws = await client()
            await ws.ws.close()
        one, two = await client(), await client()
        await settle()
        trading = [task for task in asyncio.all_tasks() if "Market.run" in repr(task.get_coro())]
        assert len(trading) == 1

        async def are_sent() -> bool:
            (figures,) = await ask(two, "/ticker", 1, "figures")
            return bool(figures["sent"] >= 6)

        await until(are_sent)
        assert await ask(one, "/ticker", 2, "burst") == [True]
        assert await ask(one, "/ticker", 3, "burst") == [False]
        assert len(server.websockets) == 2
