package deliver

import "io"

// WriteBody writes the body that is posted, for those who look at calls without making them.
func (m Message) WriteBody(out io.Writer) error {
	if m.write != nil {
		return m.write(out)
	}
	_, err := out.Write(m.body)
	return err
}
