// The start page: the server's figures, which it sends once a second.
import { Client } from "./client.js";
import { showState } from "./state.js";

const socket = new Client(location.origin, { namespace: "/status" });
showState(socket, /** @type {HTMLElement} */ (document.getElementById("state")));

socket.on("figures", (figures) => {
  for (const name of ["connections", "rooms", "messages"]) {
    /** @type {HTMLElement} */ (document.getElementById(name)).textContent = figures[name].toLocaleString();
  }
});
