package main

import (
	"fmt"

	"heliograph/tools/secrets"
)

// secretsCmd makes what edges and delivery instances share.
type secretsCmd struct {
	secretsFlags
	Delivery string           `help:"Directory that gets what delivery instances need of them: the links' files alone." placeholder:"DIR" type:"path"`
	Make     secretsMakeCmd   `cmd:"" default:"withargs" help:"Make those that are missing (what 'helio secrets' does)."`
	Rotate   secretsRotateCmd `cmd:"" help:"Replace the links' authority and certificate, one step at a time."`
}

// Help shows how it is used.
func (secretsCmd) Help() string {
	return `What is there already stays as it is. The edges' certificate signs itself and is for localhost: where
devices come from elsewhere, put a certificate of yours and its key in the place of edge.pem and edge.key.

Examples:
  helio secrets --secrets DIR --delivery LINKS
  kubectl create secret generic helio-secrets --from-file=DIR
  kubectl create secret generic helio-links --from-file=LINKS
  helio secrets rotate --secrets DIR --delivery LINKS        (its --help tells what to do between its three steps)`
}

// secretsMakeCmd makes what is missing.
type secretsMakeCmd struct{}

// Run makes the files.
func (*secretsMakeCmd) Run(c *secretsCmd) error {
	if err := secrets.Ensure(c.Secrets); err != nil {
		return err
	}
	fmt.Println("the secrets are in", c.Secrets)
	return c.copyLinks()
}

// secretsRotateCmd replaces what the links are made with.
type secretsRotateCmd struct{}

// Help shows how it is used.
func (secretsRotateCmd) Help() string {
	return `Three calls replace the authority and the certificate of the links between edges and delivery instances,
and no link breaks: after each, bring the files to every one of them and wait until they have them.
No restart is needed, the files are read at every handshake.

Examples:
  helio secrets rotate --secrets DIR --delivery LINKS
  kubectl create secret generic helio-links --from-file=LINKS --dry-run=client -o yaml | kubectl apply -f -`
}

// Run does the next step.
func (*secretsRotateCmd) Run(c *secretsCmd) error {
	step, err := secrets.Rotate(c.Secrets)
	if err != nil {
		return err
	}
	if err := c.copyLinks(); err != nil {
		return err
	}
	switch step {
	case secrets.Trust:
		fmt.Println("step 1 of 3: ca.pem holds a new authority beside the old one")
		fmt.Println("Once every edge and delivery instance has it, run this again.")
	case secrets.Show:
		fmt.Println("step 2 of 3: link.pem and link.key are new")
		fmt.Println("Once every edge and delivery instance has them, run this again.")
	case secrets.Forget:
		fmt.Println("step 3 of 3: the old authority is gone from ca.pem")
		fmt.Println("Once every edge and delivery instance has it, all is done.")
	}
	return nil
}

func (c *secretsCmd) copyLinks() error {
	if c.Delivery == "" {
		return nil
	}
	if err := secrets.CopyLinks(c.Secrets, c.Delivery); err != nil {
		return err
	}
	fmt.Println("what delivery instances need is in", c.Delivery)
	return nil
}
