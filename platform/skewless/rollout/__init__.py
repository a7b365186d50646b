"""Who answers which traffic: routes and their changes, the split, and what decides by what was seen. Pure."""
