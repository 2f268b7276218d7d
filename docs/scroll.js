// What scrolls to the side can be reached with the keyboard.
document$.subscribe(() => {
  for (const part of document.querySelectorAll(".md-typeset pre code, .md-typeset__scrollwrap")) part.tabIndex = 0;
});
