package node

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Config holds a value for every property. The zero value is not usable: Load or Defaults make one. It is never changed after that, so it is safe
// for concurrent use.
type Config struct {
	settings map[string]Setting
	order    []string
}

// Setting is one property with its value.
type Setting struct {
	Property
	Value  string
	Origin string // "default", "file hub.properties:12", "environment HUB_APP_URL", "--set", "--data", "--listen"
}

// Explicit reports whether somebody gave the value.
func (s Setting) Explicit() bool { return s.Origin != byDefault }

const byDefault = "default"

// Sources are where values come from, in rising order of force.
type Sources struct {
	File    string                       // --config: a Java-style properties file; "" for none
	Environ []string                     // "NAME=value"; HUB_ and the property's name in upper case, every other character _
	Set     []string                     // --set name=value, each
	Data    string                       // --data
	Listen  string                       // --listen host:port
	Read    func(string) ([]byte, error) // nil: os.ReadFile
}

// Defaults is the configuration when nobody says anything.
func Defaults() Config {
	c := Config{settings: map[string]Setting{}}
	for _, p := range Properties() {
		c.settings[p.Name] = Setting{Property: p, Value: p.Default, Origin: byDefault}
		c.order = append(c.order, p.Name)
	}
	return c
}

// Load gathers the configuration. Everything that is unknown or malformed in the file, in --set or in a flag is an error, all of them in one; a
// variable HUB_… that names no property is a warning.
func Load(s Sources) (c Config, warnings []string, err error) {
	c = Defaults()
	var wrong []error
	add := func(err error) {
		if err != nil {
			wrong = append(wrong, err)
		}
	}
	if s.File != "" {
		add(c.fromFile(s))
	}
	warnings = c.fromEnvironment(s.Environ, add)
	for _, set := range s.Set {
		name, value, ok := strings.Cut(set, "=")
		if !ok {
			add(fmt.Errorf("--set %s: want name=value", set))
			continue
		}
		add(c.set(strings.TrimSpace(name), value, "--set"))
	}
	if s.Data != "" {
		add(c.set("data.dir", s.Data, "--data"))
	}
	if s.Listen != "" {
		add(c.listen(s.Listen))
	}
	add(c.consistent())
	return c, warnings, errors.Join(wrong...)
}

func (c Config) fromFile(s Sources) error {
	read := s.Read
	if read == nil {
		read = os.ReadFile
	}
	data, err := read(s.File)
	if err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	entries, err := parseProperties(data)
	if err != nil {
		return fmt.Errorf("%s, %w", s.File, err)
	}
	var wrong []error
	for _, e := range entries {
		if err := c.set(e.name, e.value, fmt.Sprintf("file %s:%d", filepath.Base(s.File), e.line)); err != nil {
			wrong = append(wrong, fmt.Errorf("%s, line %d: %w", s.File, e.line, err))
		}
	}
	return errors.Join(wrong...)
}

// EnvironmentName is the variable that sets a property.
func EnvironmentName(property string) string {
	return "HUB_" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r - 'a' + 'A'
		}
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, property)
}

// Variables that belong to others: to the command line, and what container platforms inject for a service that is called hub.
var otherVariables = []string{"HUB_URL", "HUB_CONFIG", "HUB_LOG_LEVEL", "HUB_LOG_FORMAT", "HUB_PORT", "HUB_HOST", "HUB_NAME", "HUB_VERSION"}

func isOthers(name string) bool {
	return slices.Contains(otherVariables, name) || strings.HasPrefix(name, "HUB_PORT_") || strings.HasPrefix(name, "HUB_SERVICE_") ||
		strings.HasPrefix(name, "HUB_ENV_")
}

func (c Config) fromEnvironment(environ []string, add func(error)) (warnings []string) {
	byVariable := map[string]string{}
	for _, name := range c.order {
		byVariable[EnvironmentName(name)] = name
	}
	var unknown []string
	for _, kv := range environ {
		variable, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(variable, "HUB_") {
			continue
		}
		if name, ok := byVariable[variable]; ok {
			if err := c.set(name, value, "environment "+variable); err != nil {
				add(fmt.Errorf("environment %s: %w", variable, err))
			}
		} else if !isOthers(variable) {
			unknown = append(unknown, variable)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		warnings = append(warnings, "no property is set by "+strings.Join(unknown, ", ")+"; 'hub config' lists what there is")
	}
	return warnings
}

// set gives a property a value.
func (c Config) set(name, value, origin string) error {
	s, ok := c.settings[name]
	if !ok {
		sentence := fmt.Sprintf("there is no property %q", name)
		if near := c.nearest(name); near != "" {
			return fmt.Errorf("%s; did you mean %s?", sentence, near)
		}
		return fmt.Errorf("%s; 'hub config' lists what there is", sentence)
	}
	value = strings.TrimSpace(value)
	if err := s.check(value); err != nil {
		return err
	}
	if s.Kind == "boolean" {
		value = strings.ToLower(value)
	}
	s.Value, s.Origin = value, origin
	c.settings[name] = s
	return nil
}

func (c Config) listen(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("--listen %s: want host:port, such as 127.0.0.1:8080 or :8080", address)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	return errors.Join(c.set("http.bind_ip", host, "--listen"), c.set("http.bind_port", port, "--listen"))
}

// consistent checks what no property can check alone.
func (c Config) consistent() error {
	if c.settings["hub.read.only"].Value == "true" {
		for _, name := range []string{
			"webhook.leadership.enabled", "replication.enabled", "s3.batch.management.enabled", "s3.config.management.enabled", "s3Verifier.run",
		} {
			if err := c.set(name, "false", "hub.read.only"); err != nil {
				return err
			}
		}
	}
	return c.consistentCluster()
}

// nearest finds the property whose name looks most like a wrong one; "" if none does.
func (c Config) nearest(name string) string {
	best, at := "", max(2, len(name)/4)+1
	if len(name) > 100 {
		return ""
	}
	for _, known := range c.order {
		if d := distance(strings.ToLower(name), strings.ToLower(known)); d < at {
			best, at = known, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// setting finds a property; asking for one that is not in the table is a mistake in the program.
func (c Config) setting(name string) Setting {
	s, ok := c.settings[name]
	if !ok {
		panic("node: there is no property " + name)
	}
	if s.Fallback != "" && !s.Explicit() {
		return c.setting(s.Fallback)
	}
	return s
}

// Text is the value of a property.
func (c Config) Text(name string) string { return c.setting(name).Value }

// Bool is the value of a boolean one.
func (c Config) Bool(name string) bool { return c.setting(name).Value == "true" }

// Int is the value of a number; 0 for a word that stands in its place.
func (c Config) Int(name string) int64 {
	n, _ := strconv.ParseInt(c.setting(name).Value, 10, 64) // checked when it was set
	return n
}

// Time is the value of a date, at midnight UTC.
func (c Config) Time(name string) time.Time {
	t, _ := time.Parse("2006/01/02", c.setting(name).Value) // checked when it was set
	return t
}

// Duration is a number of seconds, milliseconds or minutes, as the property's unit says.
func (c Config) Duration(name string) time.Duration {
	unit := map[string]time.Duration{"ms": time.Millisecond, "seconds": time.Second, "minutes": time.Minute}[c.setting(name).Unit]
	if unit == 0 {
		panic("node: " + name + " is no duration")
	}
	return time.Duration(c.Int(name)) * unit
}

// Bytes is a number of MiB, in bytes.
func (c Config) Bytes(name string) int64 { return c.Int(name) << 20 }

// Address is where to listen.
func (c Config) Address() string {
	return net.JoinHostPort(c.Text("http.bind_ip"), c.Text("http.bind_port"))
}

// All returns every property in the order of the table, with secrets redacted: for people's eyes.
func (c Config) All() []Setting {
	all := make([]Setting, len(c.order))
	for i, name := range c.order {
		s := c.settings[name]
		if s.Fallback != "" && !s.Explicit() {
			if f := c.settings[s.Fallback]; f.Explicit() {
				s.Value, s.Origin = f.Value, f.Origin
			}
		}
		s.Value = shown(name, s.Value)
		all[i] = s
	}
	return all
}

// Redacted is shown in place of a secret.
const Redacted = "[REDACTED]"

// shown is a value without its secret: all of it where the name says that it is one, else the password of a URL (spec 05 §5).
func shown(name, value string) string {
	if value == "" {
		return value
	}
	lower := strings.ToLower(name)
	for _, word := range []string{"app_key", "api_key", "password", "secret", "token", "credential"} {
		if strings.Contains(lower, word) {
			return Redacted
		}
	}
	if strings.Contains(value, "@") {
		if u, err := url.Parse(value); err == nil && u.User != nil {
			if _, has := u.User.Password(); has {
				u.User = url.UserPassword(u.User.Username(), "REDACTED")
				return u.String()
			}
		}
	}
	return value
}

// Explicit returns the properties that somebody set, secrets redacted, and hub.type, which decides so much (spec 05 §5).
func (c Config) Explicit() map[string]string {
	m := map[string]string{}
	for _, s := range c.All() {
		if s.Explicit() || s.Name == "hub.type" {
			m[s.Name] = s.Value
		}
	}
	return m
}
