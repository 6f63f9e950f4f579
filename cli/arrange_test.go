package cli

import (
	"slices"
	"strings"
	"testing"
)

func TestArrange(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
		help           bool
	}{
		{name: "long flag with a value behind it", in: "run --name web img", want: "--name=web img"},
		{name: "long flag with an equals sign", in: "run --name=web img", want: "--name=web img"},
		{name: "short flag, value attached", in: "run -p8080:80 img", want: "--publish=8080:80 img"},
		{name: "short flag, equals sign", in: "run -p=8080:80 img", want: "--publish=8080:80 img"},
		{name: "value that holds an equals sign", in: "run -e A=B -e=C=D img", want: "--env=A=B --env=C=D img"},
		{name: "cluster", in: "run -dit img", want: "--detach --interactive --tty img"},
		{name: "cluster that ends in a flag with a value", in: "run -itv /a:/b img", want: "--interactive --tty --volume=/a:/b img"},
		{name: "cluster with a false at the end", in: "run -it=false img", want: "--interactive --tty=false img"},
		{name: "value that looks like a flag", in: "run -e --rm img", want: "--env=--rm img"},
		{name: "negative number", in: "run --pids-limit -1 img", want: "--pids-limit=-1 img"},
		{name: "boolean switched off", in: "run --init=false img", want: "--init=false img"},
		{name: "all behind the image is the app's", in: "run --rm img --rm -it --help -- x", want: "--rm img --rm -it --help -- x"},
		{name: "-- behind the image is the app's", in: "run --rm img -- -C /src", want: "--rm img -- -C /src"},
		{name: "-- before the image is left away", in: "run --rm -- host make", want: "--rm host make"},
		{name: "-h is the host name where there is one", in: "run -h box img", want: "--hostname=box img"},
		{name: "-h is help elsewhere", in: "ps -h", help: true},
		{name: "help among flags", in: "run --rm --help img", help: true},
		{name: "flags between arguments", in: "stop web -t 3 db", want: "--time=3 -- web db"},
		{name: "-- ends flags", in: "rm -f -- -odd", want: "--force -- -odd"},
		{name: "unknown long flag is left to kong", in: "run --nope img", want: "--nope img"},
		{name: "unknown short flag in a cluster is left to kong", in: "run -iz img", want: "--interactive -z img"},
		{name: "missing value is left to kong", in: "run --name", want: "--name"},
		{name: "a dash is an argument", in: "stop -", want: "-- -"},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := strings.Fields(c.in)
			i := slices.IndexFunc(commands(), func(e entry) bool { return e.name == args[0] })
			k, err := model(commands()[i : i+1])
			if err != nil {
				t.Fatal(err)
			}
			got, help := arrange(k.Model.Children[0], args[1:])
			if strings.Join(got, " ") != c.want || help != c.help {
				t.Errorf("got %q, help %v; want %q, %v", got, help, c.want, c.help)
			}
		})
	}
}
