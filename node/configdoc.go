package node

import (
	"fmt"
	"strings"
)

// Markdown is the page docs/configuration.md: `hub config --markdown` prints it, a test keeps both equal.
func Markdown() string {
	var b strings.Builder
	b.WriteString(`# Configuration

This page is printed by ` + "`hub config --markdown`" + ` from the table in node/properties.go.

A hub needs no configuration: ` + "`hub serve`" + ` listens at 127.0.0.1:8080 and keeps its data in ./hub-data. Values come from, in rising order of force:

1. ` + "`--config FILE`" + `, a properties file in Java's style (UTF-8; a name given twice or a broken escape is an error; ` + "`${…}`" + ` is plain text),
2. the environment: ` + "`HUB_`" + ` and the property's name in upper case, every other character as ` + "`_`" + ` (` + "`app.stable_seconds`" + ` is ` + "`HUB_APP_STABLE_SECONDS`" + `),
3. ` + "`--set name=value`" + `, as often as needed,
4. ` + "`--data DIR`" + ` and ` + "`--listen ADDRESS`" + `.

` + "`hub config`" + ` with the same flags shows every property with its value, its default, where the value comes from and what it means; with
` + "`--json`" + ` for programs. What is unknown or malformed stops the start with a sentence that names it; an unknown ` + "`HUB_…`" + ` variable in the
environment is one warning. Properties that change nothing in this hub are accepted, so that files of the original can be used, and say why.

## Properties

| property | default | values | meaning |
|---|---|---|---|
`)
	var without []Property
	for _, p := range Properties() {
		if p.NoEffect != "" {
			without = append(without, p)
			continue
		}
		meaning := p.Meaning
		if p.Refused != "" {
			meaning += fmt.Sprintf(". `%s` is refused: %s", p.Refused, p.Why)
		}
		if p.Fallback != "" {
			meaning += ". Not set: the value of `" + p.Fallback + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", p.Name, code(p.Default), cell(p.Range()), cell(meaning))
	}
	b.WriteString("\n## Accepted, without effect\n\n| property | default | values | why |\n|---|---|---|---|\n")
	for _, p := range without {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", p.Name, code(p.Default), cell(p.Range()), cell(p.NoEffect))
	}
	return b.String()
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
