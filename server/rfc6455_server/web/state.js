// Shows the state of a connection as text, which screen readers announce.

/**
 * @param {import("./client.js").Client} socket
 * @param {HTMLElement} element with role="status"
 */
export function showState(socket, element) {
  const show = () => {
    const { name, retryIn } = socket.state;
    const seconds = Math.ceil(retryIn);
    element.dataset.state = name;
    element.textContent = seconds > 0 ? `${name} in ${seconds} s` : name;
  };
  socket.onstate = show;
  show();
}
