"""A stock ticker: many prices per second; a slow tab gets the newest ones instead of the backlog."""

import asyncio
import random
import time
from typing import Final

from rfc6455_server.policies import coalesce
from rfc6455_server.socketio import Namespace, Socket, SocketIO

STOCKS: Final = {"KIM": 120.0, "ACME": 80.0, "NOVA": 45.0, "ORCA": 210.0, "TIDE": 150.0, "ZEN": 95.0}
"""Invented stocks, with their first prices."""

RATE: Final = 20
"""Rounds of prices per second."""

BURST_SECONDS: Final = 5.0
BURST_RATE: Final = 600
"""Seconds of a burst, and its rounds of prices per second: more than a busy tab can take."""

_VOLATILITY: Final = 0.002


class Market:
    """The prices, and how many of them were sent."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self.prices = dict(STOCKS)
        self.sent = 0
        self.open = False

    def trade(self, to: str) -> None:
        """Changes all prices, and sends them to a room or a socket."""
        for name, start in STOCKS.items():
            # A random walk with a drift back to the first price.
            drift = 0.001 * (start / self.prices[name] - 1)
            self.prices[name] *= 1 + drift + random.gauss(0, _VOLATILITY)
            # For a tab that is behind, only the newest price of each stock waits.
            target = self._namespace.to(to).with_policy(coalesce(name))
            target.emit("tick", name, round(self.prices[name], 2), time.time())

    async def run(self) -> None:
        """Trades while anybody is connected."""
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
        """Returns how many ticks this tab was sent, and how many of them newer ones replaced."""
        sent = market.sent - socket.data["before"] + socket.data["burst"]
        return {"sent": sent, "merged": socket.dropped}

    @ticker.on("burst")
    def burst(socket: Socket) -> bool:
        """Sends this tab more than it can take; False if a burst is running already."""
        if socket.data["bursting"]:
            return False

        async def send() -> None:
            socket.data["bursting"] = True
            start, rounds = time.monotonic(), 0
            while (elapsed := time.monotonic() - start) < BURST_SECONDS and socket.connected:
                while rounds < elapsed * BURST_RATE:  # on a busy machine, catches up
                    market.trade(socket.id)
                    socket.data["burst"] += len(STOCKS)
                    rounds += 1
                await asyncio.sleep(0.01)
            socket.data["bursting"] = False

        io.spawn(send())
        return True
