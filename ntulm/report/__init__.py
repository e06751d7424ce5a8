"""Tables, figures and pages for people: `stage.run`."""
