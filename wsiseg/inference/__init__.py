"""From pixels of a slide to masks, objects and what people look at."""
