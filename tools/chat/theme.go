package chat

import (
	"hash/fnv"
	"image/color"

	"charm.land/lipgloss/v2"

	"heliograph/schemas/id"
)

// theme holds the styles for a light or a dark terminal. What they tell is told without colour too.
type theme struct {
	accent, dim, bold, bad, good lipgloss.Style
	badge                        lipgloss.Style
	chosen                       lipgloss.Style // line of the list or message under the cursor
	own, other                   lipgloss.Style // bubbles
	ownDim, otherDim, ownRead    lipgloss.Style // what stands in them beside the text
	ownBad                       lipgloss.Style
	bar                          lipgloss.Style // status
	rule                         lipgloss.Style
	people                       []color.Color
}

func newTheme(dark bool) *theme {
	pick := lipgloss.LightDark(dark)
	c := func(light, dark string) color.Color { return pick(lipgloss.Color(light), lipgloss.Color(dark)) }
	fg := func(light, dark string) lipgloss.Style { return lipgloss.NewStyle().Foreground(c(light, dark)) }
	accent, dim := c("#0a6c74", "#5fd7d7"), c("#6c6c6c", "#8a8a8a")
	ownBG, otherBG := c("#d7efe9", "#1f3b3f"), c("#ececec", "#2c2f36")
	text := c("#1c1c1c", "#e4e4e4")
	t := &theme{
		accent: lipgloss.NewStyle().Foreground(accent).Bold(true),
		dim:    lipgloss.NewStyle().Foreground(dim),
		bold:   lipgloss.NewStyle().Bold(true),
		bad:    fg("#b00020", "#ff8787"),
		good:   fg("#1a7f37", "#87d787"),
		badge:  lipgloss.NewStyle().Bold(true).Foreground(c("#ffffff", "#00262b")).Background(accent),
		chosen: lipgloss.NewStyle().Background(c("#dcdcdc", "#3a3d46")).Foreground(text),
		own:    lipgloss.NewStyle().Background(ownBG).Foreground(text),
		other:  lipgloss.NewStyle().Background(otherBG).Foreground(text),
		rule:   fg("#c6c6c6", "#444444"),
		bar:    lipgloss.NewStyle().Background(c("#e4e4e4", "#26282e")).Foreground(c("#3a3a3a", "#bcbcbc")),
	}
	t.ownDim = t.own.Foreground(c("#5f7f78", "#8fb0ad"))
	t.otherDim = t.other.Foreground(dim)
	t.ownRead = t.own.Foreground(c("#005fd7", "#5fd7ff")).Bold(true)
	t.ownBad = t.own.Foreground(c("#b00020", "#ff8787")).Bold(true)
	for _, p := range [][2]string{
		{"#a8480f", "#ffaf5f"}, {"#8700af", "#d7afff"}, {"#1a7f37", "#87d787"}, {"#af005f", "#ff87d7"},
		{"#005faf", "#87afff"}, {"#7a6a00", "#d7d75f"}, {"#b00020", "#ff8787"}, {"#00707a", "#5fd7d7"},
	} {
		t.people = append(t.people, c(p[0], p[1]))
	}
	return t
}

// person gives a user's colour, the same every time.
func (t *theme) person(u id.UserID) lipgloss.Style {
	h := fnv.New32a()
	_, _ = h.Write(u[:]) // never fails
	return lipgloss.NewStyle().Foreground(t.people[h.Sum32()%uint32(len(t.people))])
}
