"""A stock ticker: many prices a second, of which a slow tab gets the newest and not the backlog."""

import asyncio
import random
import time
from typing import Final

from rfc6455_server.policies import coalesce
from rfc6455_server.socketio import Namespace, Socket, SocketIO

STOCKS: Final = {"KIM": 120.0, "ACME": 80.0, "NOVA": 45.0, "ORCA": 210.0, "TIDE": 150.0, "ZEN": 95.0}
"""Made up, with the price that each begins with."""

RATE: Final = 20
"""Rounds of prices a second."""

BURST_SECONDS: Final = 5.0
BURST_RATE: Final = 600
"""How long, and how many rounds a second, a tab is sent that asks for more than it can take."""

_VOLATILITY: Final = 0.002


class Market:
    """The prices, and what was sent of them."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self.prices = dict(STOCKS)
        self.sent = 0
        self.open = False

    def trade(self, to: str) -> None:
        """A round of new prices for a room, or a socket."""
        for name, start in STOCKS.items():
            # A random walk that is drawn back to where it began.
            drift = 0.001 * (start / self.prices[name] - 1)
            self.prices[name] *= 1 + drift + random.gauss(0, _VOLATILITY)
            # Of one stock only the newest price waits for who is behind.
            target = self._namespace.to(to).with_policy(coalesce(name))
            target.emit("tick", name, round(self.prices[name], 2), time.time())

    async def run(self) -> None:
        """Trades while somebody looks."""
        if self.open:
            return
        self.open = True
        while self._namespace.sockets:
            self.trade("prices")
            self.sent += len(STOCKS)
            await asyncio.sleep(1 / RATE)
        self.open = False


def add_ticker(io: SocketIO) -> None:
    """Adds the namespace ``/ticker``."""
    ticker = io.of("/ticker")
    market = Market(ticker)

    @ticker.on("connect")
    def connected(socket: Socket) -> None:
        socket.data.update(before=market.sent, burst=0, bursting=False)
        socket.join("prices")
        socket.emit("stocks", {name: round(price, 2) for name, price in market.prices.items()})
        io.spawn(market.run())

    @ticker.on("figures")
    def figures(socket: Socket) -> dict[str, int]:
        """How many ticks this tab was sent since it came, and how many were merged into newer ones."""
        sent = market.sent - socket.data["before"] + socket.data["burst"]
        return {"sent": sent, "merged": socket.dropped}

    @ticker.on("burst")
    def burst(socket: Socket) -> bool:
        """Sends this tab more than it can take; False when that is going on already."""
        if socket.data["bursting"]:
            return False

        async def send() -> None:
            socket.data["bursting"] = True
            until = time.monotonic() + BURST_SECONDS
            while time.monotonic() < until and socket.connected:
                for _ in range(BURST_RATE // 100):
                    market.trade(socket.id)
                    socket.data["burst"] += len(STOCKS)
                await asyncio.sleep(0.01)
            socket.data["bursting"] = False

        io.spawn(send())
        return True
