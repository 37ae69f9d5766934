// The page as a whole: its views, light and dark. What a view does is in the file of its name.

import { $ } from "./dom.js";
import * as overview from "./overview.js";
import * as requests from "./requests.js";
import * as rooms from "./rooms.js";
import * as session from "./session.js";
import * as tail from "./tail.js";
import * as tryout from "./tryout.js";

const VIEWS = ["overview", "rooms", "live", "try-out", "requests"];

/** Shows the view that the address names. */
function go() {
  const name = VIEWS.find((view) => `#${view}` === location.hash) ?? VIEWS[0];
  for (const view of VIEWS) $(view).hidden = view !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (name === "rooms") rooms.enter();
  if (name === "requests") requests.enter();
}

/** The system's choice, until the button says otherwise. */
function themes() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  $("theme").onclick = () => {
    const now = document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
    document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  };
}

session.start();
overview.start();
rooms.start();
tail.start();
tryout.start();
requests.start();
themes();
go();
addEventListener("hashchange", () => {
  go();
  scrollTo(0, 0);
  // Readers of the screen begin with what is new.
  document.querySelector("main > section:not([hidden]) h2").focus({ preventScroll: true });
});
