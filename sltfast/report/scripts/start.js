// every part is there: paint it in the colours of the theme
applyTheme();
