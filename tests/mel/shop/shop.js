// All that a shop has to do: start the SDK, say who somebody is, and tell what happens.
const { door, app } = document.currentScript.dataset;
const find = (selector) => document.querySelector(selector);

headrace.initialize(app, { baseUrl: door });

function greet(name) {
  find("#login").hidden = Boolean(name);
  find("#hello").hidden = !name;
  find("#hello").textContent = name ? `Logged in as ${name}` : "";
}

const known = localStorage.getItem("side-b-account");
greet(known);
if (known) headrace.changeUser(known);
headrace.openSession();

find("#login").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = find("#name").value.trim();
  localStorage.setItem("side-b-account", name);
  headrace.changeUser(name);
  greet(name);
});

for (const button of document.querySelectorAll(".like"))
  button.addEventListener("click", () => {
    const { article, topic } = button.closest("article").dataset;
    headrace.logCustomEvent("article_liked", { article, topic });
    button.textContent = "Liked";
    button.classList.add("done");
  }, { once: true });

find("#wish")?.addEventListener("click", () => {
  headrace.logCustomEvent("wishlist_added", { product: find("main").dataset.product });
  find("#wish").textContent = "On your wishlist";
  find("#wish").classList.add("done");
}, { once: true });
