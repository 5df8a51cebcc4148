"""A style of matplotlib for figures of papers and slides."""

# For plt.style.use(fastglm.styles.plot_style).
plot_style = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "image.cmap": "viridis",
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "savefig.bbox": "tight",
    "xtick.direction": "out",
    "ytick.direction": "out",
}
