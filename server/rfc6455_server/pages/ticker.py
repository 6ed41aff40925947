"""A stock ticker: many prices per second; a slow tab gets the newest ones instead of the backlog."""

import asyncio
import random
import time
from typing import Annotated, Final

from rfc6455_server.policies import coalesce
from rfc6455_server.socketio import Namespace, Socket, SocketIO

STOCKS: Final = {"KIM": 120.0, "ACME": 80.0, "NOVA": 45.0, "ORCA": 210.0, "TIDE": 150.0, "ZEN": 95.0}
"""Invented stocks, with their first prices."""

RATE: Final = 20
"""Rounds of prices per second."""

BURST_SECONDS: Final = 5
BURST_RATE: Final = 600
"""Seconds of a burst, and its rounds of prices per second: more than a busy tab can take."""

ROUNDS_PER_TURN: Final = 6
"""Rounds of a burst between two turns of the event loop."""

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

    @ticker.emits("stocks")
    def stocks(prices: dict[str, float]) -> None:
        """All prices, by name, when a client connects."""

    # Only declared: `Market.trade` sends 3600 a second in a burst, and does not check each.
    @ticker.emits("tick")
    def _(name: str, price: float, time: Annotated[float, "Seconds since 1970."]) -> None:
        """The new price of a stock."""

    @ticker.on("connect")
    def connected(socket: Socket) -> None:
        socket.data.update(before=market.sent, burst=0, bursting=False)
        socket.join("prices")
        stocks.emit(socket, {name: round(price, 2) for name, price in market.prices.items()})
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
            # A fixed number of rounds, so that a busy machine sends as much, and only takes longer.
            for rounds in range(1, BURST_SECONDS * BURST_RATE + 1):
                if not socket.connected:
                    break
                market.trade(socket.id)
                socket.data["burst"] += len(STOCKS)
                if rounds % ROUNDS_PER_TURN == 0:
                    await asyncio.sleep(ROUNDS_PER_TURN / BURST_RATE)
            socket.data["bursting"] = False

        io.spawn(send())
        return True
