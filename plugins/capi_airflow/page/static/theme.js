// Airflow keeps the theme that a person chose under this name; "system" leaves it to CSS.
(() => {
  const show = (theme) => {
    const root = document.documentElement;
    if (theme === "dark" || theme === "light") root.dataset.theme = theme;
    else delete root.dataset.theme;
    root.dispatchEvent(new CustomEvent("themed"));
  };
  show(localStorage.getItem("theme"));
  addEventListener("storage", (event) => {
    if (event.key === "theme") show(event.newValue);
  });
})();
