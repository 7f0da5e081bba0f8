//! Machinefiles, valid and invalid, and the errors about them.

use std::{fs, path::Path};

use miette::GraphicalTheme;

use super::{model::KernelSource, *};

mod bounds;
mod bridges;
mod egress;
mod firmware;
mod foreign;

/// A project folder with a Machinefile and two files to refer to.
fn project(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(MACHINEFILE), text).unwrap();
    fs::write(folder.path().join("setup.sh"), "true\n").unwrap();
    fs::write(folder.path().join("empty.sh"), "").unwrap();
    fs::write(folder.path().join("binary"), "\x7fELF\0\0").unwrap();
    fs::write(folder.path().join("windows.sh"), "#!/bin/sh\r\ntrue\r\n").unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    folder
}

fn env(name: &str) -> Option<String> {
    (name == "BOX").then(|| "debian-12".to_string())
}

fn loaded(folder: &Path) -> Result<Project, MachinefileErrors> {
    load(&folder.join(MACHINEFILE), &env)
}

/// What a person sees.
fn rendered(errors: &MachinefileErrors, folder: &Path) -> String {
    errors
        .render(GraphicalTheme::unicode_nocolor(), 100)
        .replace(
            &folder.canonicalize().unwrap().display().to_string(),
            "<project>",
        )
        .replace(
            &std::env::temp_dir()
                .canonicalize()
                .unwrap()
                .display()
                .to_string(),
            "<parent>",
        )
}

fn broken(text: &str) -> String {
    let folder = project(text);
    match loaded(folder.path()) {
        Ok(_) => panic!("it was taken for right"),
        Err(errors) => rendered(&errors, folder.path()),
    }
}

#[test]
fn what_would_surprise_in_scripts_is_said_with_its_place() {
    let text = r##"project "shop"
defaults {
    box "b"
    ready { exec "grep -q '\sx' /etc/motd"; }
}
machine "a" count=2 {
    provision "tab" { shell inline="printf 'a\tb'"; }
    provision "end" {
        shell inline="""
            cat >/etc/x <<EOF
                a
                EOF
            """
    }
    provision "raw" {
        shell inline=#"""
            printf 'a\tb' | sed 's/\s/\n/' >"/x"
            cat >/etc/x <<EOF
            a\tb
            EOF
            """#
    }
    before "up" { host inline=#"echo "$STEAD_MACHINE\t starts""#; }
    after "up" { guest inline="echo 'a\nb'"; }
}
"##;
    let folder = project(text);
    let project = loaded(folder.path()).unwrap();
    insta::assert_snapshot!(project.warnings.join("\n"));
}

macro_rules! broken {
    ($($name:ident: $text:expr;)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(stringify!($name), broken($text));
        }
    )*};
}

broken! {
    broken_without_braces: r##"project "shop"
provision "shell" inline="echo hi"
provision "site.yml"
machine "a" {
    box "b"
    provision "shell" inline="echo hi"
    provision "shell" inline="echo hi" run="always" privileged=#false
    provision "setup" inline="sed -i 's/a long text/another long text/' /etc/motd"
    provision "shell" path="setup.sh"
    provision "shell" "setup.sh"
    provision "setup.sh"
    provision shell="setup.sh"
    provision "file" source="motd" destination="/etc/motd"
    provision "ansible" playbook="site.yml"
    provision "web" { inline "echo hi"; }
    provision { shell "setup.sh"; }
    before "up" inline="echo hi"
    after "up" "echo hi"
    after "halt" host="./setup.sh"
    kernel package="linux-image-6.1"
    ready tcp=5432
}
machine "b" { kernel "linux-image-6.1"; ready 5432; }
machine "c" { memory 2048; disk "20"; ready { timeout 300; }; provision "x" { shell "setup.sh" timeout=300; }; }
"##;
    broken_backslashes: r##"project "shop"
machine "a" {
    box "b"
    provision "one" { shell inline="sed 's/foo\.bar/x/' /etc/hosts"; }
    provision "lines" {
        shell inline="""
            set -eu
            sed -i 's/foo\.bar/x/' /etc/hosts
            grep '^\w\d\+' /etc/hosts | sed 's/\(a\)/\1/'
            awk '/a\.b/' /etc/hosts
            """
    }
}
"##;
    broken_syntax: "project \"shop\"\nmachine \"web\" {\n    box \"debian-12\n    cpus 2\n}\n";
    broken_assignments: "project \"shop\"\n# The web server.\nmachine \"web\" {\n    box = \"debian-12\"\n    memory: 2GiB\n    sync \"src\" to=\"/srv\" delete=false\n}\n";
    broken_braces: "project \"shop\"\nmachine \"web\" {\n    box \"debian-12\"\n    sync \"src\" to=\"/srv\" {\n        exclude \"x\"\n}\nmachine \"db\" {\n    box \"debian-12\"\n}\n";
    broken_joined: "project \"shop\"\nmachine \"web\" { cpus 2 box \"debian-12\" memory \"1GiB\" }\ndefaults { sync \"src\" to=\"/srv\" internet #true }\n";
    broken_ports: "project \"shop\"\ndefaults { box \"b\"; }\nmachine \"web\" {\n    forward \"8080:80\"\n}\n";
    broken_bare_ports: "project \"shop\"\nmachine \"web\" {\n    forward 8080:80\n}\n";
    broken_forwards: "project \"shop\"\ndefaults { box \"b\"; }\nmachine \"a\" {\n    forward 1 to=2 protocol=\"upd\" address=\"localhost\" auto-correct=\"yes\"\n    forward \"8000-8010\" to=\"9000-9005\"\n    forward \"8000-8010\" to=80\n    forward 8000 to=\"80-81\"\n    forward \"8010-8000\"\n    forward \"8000-8100\"\n    forward \"8000-70000\"\n    forward 3 address=\"::1\"\n    forward 4 address=\"224.0.0.1\"\n    forward \"127.0.0.1:8080:80/udp\"\n    forward \"8000-8001:80-81\"\n    forward \"53/udp\"\n}\n";
    broken_forwards_without_ports: "project \"shop\"\ndefaults { box \"b\"; }\nmachine \"a\" {\n    forward to=80\n    forward\n    forward to=\"http\" protocol=\"udp\"\n}\n";
    broken_foreign_forwards: "project \"shop\"\nmachine \"a\" {\n    box \"b\"\n    forward guest=80 host=8080 host_ip=\"0.0.0.0\" auto_correct=#true\n    forward guestPort=80 hostPort=8080 proto=\"udp\"\n    forward 8080 to=80 addres=\"0.0.0.0\"\n    network \"forwarded_port\" guest=80 host=8080\n    portForwards 8080\n}\n";
    broken_bare_ranges: "project \"shop\"\nmachine \"web\" {\n    forward 8000-8010\n}\nmachine \"db\" {\n    forward \"8000-8010\" to=9000-9010\n}\n";
    broken_same_ports: "project \"shop\"\ndefaults { box \"b\"; }\nmachine \"a\" {\n    forward 8080\n    forward 8080 protocol=\"udp\"\n    forward 8080 address=\"127.0.0.2\"\n    forward 8080 to=81\n    forward 8080 to=82 protocol=\"udp\" address=\"0.0.0.0\"\n}\nmachine \"b\" count=2 {\n    forward \"9000-9009\"\n    forward \"9015-9019\"\n}\nmachine \"c\" count=3 { forward \"65500-65519\"; }\n";
    broken_elsewhere: "project \"shop\"\nvm \"web\" { box \"x\"; }\nmachine \"db\" {\n    image \"debian-12\"\n    vcpus 2\n    ram \"1GiB\"\n    ports 8080\n    volumes \"src\"\n}\n";
    broken_vagrantfile: "# -*- mode: ruby -*-\n\nVagrant.configure(\"2\") do |config|\n  config.vm.box = \"debian/bookworm64\"\nend\n";
    broken_yaml: "services:\n  web:\n    image: debian\n    ports: [\"8080:80\"]\n";
    broken_dockerfile: "FROM debian:12\nRUN apt-get update\nEXPOSE 80\n";
    broken_misspelt: "project \"shop\"\nmachin \"web\" { box \"x\" }\nmachine \"db\" {\n    box \"debian-12\"\n    memroy \"1GiB\"\n    volume \"data\"\n    sync \"src\" to=\"/srv/a\" detele=#false\n}\n";
    broken_units: "project \"shop\"\ndefaults { box \"debian-12\"; }\nmachine \"a\" { memory 2; }\nmachine \"b\" { memory \"2G\"; }\nmachine \"c\" { disk \"1.5GiB\"; ready { timeout 90; }; }\nmachine \"d\" { memory \"1MiB\"; }\n";
    broken_types: "project \"shop\"\nmachine \"a\" {\n    box 12\n    cpus \"2\"\n    forward \"8080\" to=80\n    sync \"src\" to=\"/srv/a\" delete=\"no\"\n}\nmachine \"b\" { box \"x\" \"y\"; cpus 0; forward 70000; }\n";
    broken_tuning: "project \"shop\"\nhost-reserve cpu=2 memory=2\ndefaults { box \"debian-12\"; }\nmachine \"a\" {\n    cpus 4 reserve=#true pin=\"0-2\" quota=\"350%\" sockets=2 cores=3\n    memory \"1GiB\" reserve=#true max=\"512MiB\"\n    disk \"20GiB\" iops=0 throughput=\"100MiB\"\n    bandwidth \"10MB/s\"\n}\nmachine \"b\" {\n    cpus 1 pin=\"3-1\" shares=1 quota=\"0%\" reserved=#true\n    memory \"1025MiB\" hugepages=\"2MiB\" reserve=\"yes\"\n    disk \"1GiB\" throughput=\"fast\"\n}\nmachine \"c\" { cpus 1 quota=150; memory \"1GiB\" hugepages=\"3MiB\"; }\n";
    broken_kernel: "project \"shop\"\ndefaults { box \"debian-12\"; }\nmachine \"a\" { kernel; }\nmachine \"b\" { kernel boot=\"instaled\" { path \"vmlinuz\"; host; }; }\nmachine \"c\" { kernel boot=\"installed\" { host; cmdline \"quiet\" 2; }; }\nmachine \"d\" { kernel { pakage \"linux\"; cmdline; }; }\nmachine \"e\" { kernel { package \"a b\" distribution=\"debian\"; }; }\nmachine \"f\" { kernel { capture \"../x\"; }; }\n";
    broken_cycle: "project \"shop\"\ndefaults { box \"debian-12\"; }\nmachine \"a\" { depends-on \"b\"; }\nmachine \"b\" { depends-on \"c\"; }\nmachine \"c\" { depends-on \"a\"; }\nmachine \"d\" { depends-on \"dd\"; }\n";
    broken_duplicates: "project \"shop\"\ndefaults { box \"debian-12\"; }\nmachine \"web\" { forward 8080 to=80; cpus 1; cpus 2; }\nmachine \"web\" { }\nmachine \"db\" count=2 {\n    forward 8079 to=80\n    provision \"p\" { shell \"setup.sh\"; }\n    provision \"p\" { shell \"setup.sh\"; }\n}\n";
    broken_names: "project \"My Shop\"\nmachine \"Web_1\" { box \"debian-12\"; hostname \"-x\"; user \"0day\"; }\n";
    broken_paths: "project \"shop\"\nmachine \"web\" {\n    box \"debian-12\"\n    sync \"..\" to=\"/srv/a\"\n    sync \"/\" to=\"/srv/b\"\n    sync \"src\" to=\"srv/c\"\n    sync \"src\" to=\"/\"\n    sync \"setup.sh\" to=\"/srv/d\"\n    provision \"a\" { shell \"gone.sh\"; }\n    provision \"b\" { file \"src\" to=\"/etc/../x\" mode=\"rw\"; }\n}\n";
    broken_sync: "project \"shop\"\ndefaults { box \"debian-12\"; }\nmachine \"web\" {\n    sync \"src\" to=\"/srv/a\" type=\"nfs\"\n    sync \"src\" to=\"/srv/b\" type=\"virtiofs\" delete=#true gitignore=#true owner=\"www-data\" { exclude \"x\"; }\n    sync \"src\" to=\"/srv/c\" type=\"9p\" mode=\"two-way\"\n    sync \"src\" to=\"/srv/d\" mode=\"two-ways\"\n    sync \"src\" to=\"/srv/e\" readonly=#true\n    sync \"src\" to=\"/srv/f\" type=\"auto\" readonly=#true\n    sync \"src\" to=\"/srv/g\" mode=\"two-way\" delete=#false\n    sync \"/\" to=\"/srv/h\" outside=#true\n    sync \"src\" to=\"/srv/i\" owner=\"a b\" watch=\"yes\"\n}\n";
    broken_ansible: "project \"shop\"\ndefaults { box \"debian-12\"; }\nmachine \"a\" {\n    provision \"a\" { ansible \"gone.yml\"; }\n    provision \"b\" { ansible \"setup.sh\" becom=#true verbosity=5 {\n        vars \"x\" class=1 \"2b\"=2 much=#inf big=99999999999999999999\n        limit \"a\"; tags \"a,b\"; arguments \"--check\"; requirements \"src\"\n        groups \"a b\"; varz a=1\n    }; }\n    provision \"c\" { ansible-local \"setup.sh\" install=\"pipx\" become=#false become-user=\"x\" { arguments \"-K\" \"--step\"; }; }\n    provision \"d\" { ansible \"../x.yml\"; }\n}\nprovision \"s\" { shell \"setup.sh\"; }\nprovision \"t\" { ansible \"setup.sh\" { limit \"b\" \"a*\" \"empty\"; groups \"x\"; }; }\nprovision \"t\" { ansible \"setup.sh\"; }\nprovision \"u\"\ngroup \"empty\"\n";
    broken_inventory: "project \"shop\"\ndefaults { box \"debian-12\"; }\nmachine \"web\" { labels role=\"front\"; vars x-y=1; }\ngroup \"stores\" { machines \"wbe\"; children \"rol_front\" \"stores\"; }\ngroup \"a\" { children \"b\"; }\ngroup \"b\" { children \"c\"; }\ngroup \"c\" { children \"a\"; vars 1; }\ngroup \"a\"\ngroup \"all\" { machines \"web\"; }\ngroup \"no:good\" { hosts \"web\"; }\ngroup\n";
    broken_nested_syncs: "project \"shop\"\nmachine \"web\" {\n    box \"debian-12\"\n    sync \"src\" to=\"/srv/app\"\n    sync \"src\" to=\"/srv/app/x\" type=\"virtiofs\"\n    sync \"src\" to=\"/srv/app/y\"\n    sync \"src\" to=\"/srv/application\" mode=\"two-way\"\n}\n";
    broken_missing: "machine \"web\" {\n    cpus\n    sync \"src\"\n    provision \"a\" { }\n    provision \"b\" { shell; }\n    provision { shell \"setup.sh\"; }\n}\n";
    broken_scripts: "project \"shop\"\ndefaults { box \"b\"; }\nmachine \"a\" {\n    provision \"1\" { shell \"empty.sh\"; }\n    provision \"2\" { shell \"binary\"; }\n    provision \"3\" { shell \"windows.sh\"; }\n    provision \"4\" { shell \"src\"; }\n    provision \"5\" { shell inline=\" \"; }\n    provision \"6\" { shell \"setup.sh\" \"x\" sensitive=#true timeout=\"0s\" workdir=\"app\"; }\n    provision \"7\" { shell \"setup.sh\" interpreter=\"bash -c 'x'\" { env A-B=\"s3cret\" UID=\"s3cret\"; }; }\n    provision \"8\" { shell \"setup.sh\" timeout=10 interpreter=\"\" sensitiv=#true; }\n}\n";
    broken_hooks: "project \"shop\"\ndefaults { box \"b\"; }\nmachine \"a\" {\n    before \"up\" { guest \"setup.sh\"; }\n    after \"halt\" { guest inline=\"true\"; }\n    after \"destroy\" { guest inline=\"true\"; }\n    before \"provision\" { host \"setup.sh\"; }\n    after \"up\" { host \"gone/x.sh\"; shell \"setup.sh\"; host; host \"make\" interpreter=\"sh\"; host \"setup.sh\" user=\"x\"; }\n    before \"halt\"\n    befor \"up\"\n}\n";
    broken_internet: "project \"shop\"\ndefaults { box \"b\"; internet #false; }\nmachine \"a\" { internet \"no\"; }\nmachine \"b\" { internet; }\nmachine \"c\" { internet #true #false; }\n";
    broken_egress: "project \"shop\"\ndefaults { box \"b\"; }\nmachine \"a\" {\n    egress { allow \"https://deb.debian.org/debian\" \"fe80::1\" \"2001:db8::/32\" \"192.0.2.7/24\" \"deb.debian.org:443\" \"\" \"*\" \"a b\" 8; alow \"x\"; allow \"registry\"; }\n    egress { allow \"deb.debian.org\"; }\n}\nmachine \"b\" { egress; }\nmachine \"c\" { egress { allow; }; }\nmachine \"d\" { egress \"deb.debian.org\"; }\nmachine \"e\" { egress allow=\"deb.debian.org\"; }\nmachine \"f\" { egress to=\"x\" { allow \"a.test\" port=443 { x; }; }; }\nmachine \"g\" { egress { allow \"a.test\"; }; internet #false; }\nmachine \"h\" { egress { allow \"a.test\"; }; network none=#true; }\nmachine \"i\" { host-access tcp=5432; network none=#true; }\n";
    broken_host_access: "project \"shop\"\ndefaults { box \"b\"; }\nmachine \"a\" {\n    host-access tcp=0\n    host-access tcp=65536\n    host-access tcp=\"5432\"\n    host-access tcp=\"8010-8000\"\n    host-access tcp=\"8000-8200\"\n    host-access tcp=\"a-b\"\n    host-access udp=53\n    host-access 5432\n    host-access port=5432\n    host-access \"localhost:5432\"\n    host-access \"localhost\"\n    host-access\n    host-access none=#false\n    host-access tcp=1 none=#true\n    host-access tpc=1\n    host-access tcp=1 { tcp 2; }\n}\nmachine \"b\" { host-access tcp=1; host-access none=#true; }\nmachine \"c\" { host-access tcp=\"8000-8060\"; host-access tcp=\"9000-9010\"; }\nmachine \"d\" { host-acess tcp=1; }\n";
    broken_networks: "project \"shop\"\ndefaults { box \"b\"; }\nnetwork \"a\" subnet=\"10.77.0.0/29\"\nnetwork \"b\" subnet=\"10.77.0.0/16\"\nnetwork \"c\" subnet=\"8.8.8.0/24\"\nnetwork \"d\" subnet=\"10.78.0.5/24\"\nnetwork \"e\" subnet=\"10.0.2.0/24\"\nnetwork \"a\"\nnetwork \"A_b\" gateway=\"x\"\nmachine \"m\" count=3 { network \"a\" address=\"10.77.0.5\" aliases=\"n github.com\"; }\nmachine \"n\" { network \"a\" address=\"10.77.0.6\"; network \"a\"; network \"backk\"; }\nmachine \"o\" { network \"a\" address=\"10.77.0.1\"; network \"b\" address=\"10.77\"; network none=#true; }\nmachine \"p\" count=4 { network \"a\"; }\nmachine \"q\" { network none=#false; }\n";
    broken_links: "project \"shop\"\ndefaults { box \"b\"; }\nnetwork \"back\"\nnetwork \"front\"\nmachine \"web\" count=2 { network \"front\"; }\nmachine \"db\" { network \"back\"; }\nmachine \"app\" { network \"back\"; network \"front\"; }\nmachine \"off\" { network none=#true; }\nlink \"web\" \"dbb\" latency=\"80ms\"\nlink \"web\" \"db\" latency=\"80ms\"\nlink \"app\" \"db\" network=\"front\" loss=\"1%\"\nlink \"app\" \"db\" network=\"bakc\" loss=\"1%\"\nlink \"off\" loss=\"1%\"\nlink \"db\" \"db\" loss=\"1%\"\nlink \"app\" \"db\"\nlink \"app\" \"db\" \"web\" loss=\"1%\"\nlink \"app\" latency=80 jitter=\"-1ms\" loss=\"101%\" rate=\"0mbit\"\nlink \"app\" latency=\"1h\" loss=\"0.5\" rate=\"10Mbps\" delay=\"1ms\"\nlink loss=\"1%\" one-way=#true\nlink \"app\" loss=\"1%\" one-way=\"yes\" { cut; }\n";
    broken_bridges: "project \"shop\"\ndefaults { box \"b\"; }\nnetwork \"lan\" bridge=\"br0\"\nnetwork \"a\" bridge=\"br1\" subnet=\"10.77.0.0/24\" isolated=#true\nnetwork \"default\" bridge=\"br0\"\nnetwork \"b\" bridge=\"\"\nnetwork \"c\" bridge=\"..\"\nnetwork \"d\" bridge=\"a/b\"\nnetwork \"e\" bridge=\"br 0\"\nnetwork \"f\" bridge=\"-br0\"\nnetwork \"g\" bridge=\"br0'><x/>\"\nnetwork \"h\" bridge=\"sixteen-letters0\"\nnetwork \"i\" bridge=\"stbr0a1b2c\"\nnetwork \"j\" bridge=0\nmachine \"m\" count=2 { network \"lan\" address=\"192.168.1.5\" aliases=\"x y\"; }\nmachine \"n\" { network \"lan\"; egress { allow \"a.test\"; }; }\nmachine \"o\" { network \"lan\"; host-access tcp=1; }\nmachine \"p\" { network \"lan\"; internet #false; }\nmachine \"q\" { network \"public_network\" bridge=\"br0\"; }\nlink \"m\" network=\"lan\" loss=\"1%\"\nlink \"m\" loss=\"1%\"\n";
    broken_foreign_networks: "project \"shop\"\ndefaults { box \"b\"; }\nnetwork \"a\" cidr=\"10.77.0.0/24\"\nnetwork \"b\" \"10.78.0.0/24\"\nnetwork \"c\" ip=\"10.79.0.7/24\"\nnetwork \"d\" driver=\"bridge\" internal=#true\nnetwork \"e\" parent=\"eth0\"\nnetwork \"f\" { subnet \"10.80.0.0/24\"; }\nnetwork \"g\" aliases=\"x\"\nnetwork \"back\"\nmachine \"a\" { network \"back\" ip=\"10.77.0.10/24\"; network \"back\" cidr=\"10.77.0.0/24\"; network \"back\" dev=\"br7\"; network \"back\" alias=\"pg\"; }\nmachine \"b\" { network \"back\" aliases=\"postgres\" \"pg\"; network \"back\" \"10.77.0.10\"; network \"back\" \"front\"; network \"back\" aliases=\"a, b\"; }\nmachine \"c\" { network \"back\" { address \"10.77.0.10\"; aliases \"postgres\" \"pg\"; gateway \"x\"; }; network \"back\" address=\"10.77.0.10/24\"; }\nmachine \"d\" { network none; network #false; network #true; network \"back\" mac=\"52:54:00:00:00:01\" type=\"dhcp\"; }\n";
    broken_networks_of_vagrant: "project \"shop\"\ndefaults { box \"b\"; }\nnetwork \"back\"\nmachine \"e\" { network \"private_network\" ip=\"192.168.56.10\"; network \"private_network\" type=\"dhcp\"; network \"public_network\"; network \"public_network\" bridge=\"br1\"; }\nmachine \"f\" { network \"bakc\"; network \"Front End\"; network \"dmz\" address=\"10.90.0.7\"; network \"back\" address=\"10.91.0.7\"; }\nmachine \"g\" { ip \"10.77.0.10\"; private_network \"x\"; aliases \"pg\"; ports 8080; firewall \"x\"; }\n";
    broken_foreign_values: "project \"shop\"\ndefaults { box \"b\"; }\nmachine \"a\" { forward 8080 80; forward 8081 \"81\" \"udp\"; forward 8082 to=80 \"udp\"; forward 8083 \"web\"; forward \"http\"; forward 8084 to=\"https\"; forward 8085 { to 80; }; }\nmachine \"b\" { forward auto; forward none; forward #false; forward #true; forward 8090 auto=#false; forward 8091 dev=\"eth0\" udp=#true; forward auto=\"no\"; }\nmachine \"c\" { ready { tcp \"postgres\"; }; sync \".\" \"/srv\"; sync \"src\" to=\"/a\" { \".git\" \"target\"; owner \"x\"; }; depends-on { \"a\"; b; }; labels { role \"db\"; }; vars { x 1; }; }\nmachine \"d\" 2\n";
    broken_bools: "project \"shop\"\ndefaults { box \"b\"; }\nmachine \"a\"\nmachine \"b\"\nmachine \"e\" { internet \"true\"; sync \"src\" to=\"/a\" delete=\"off\" watch=1; forward auto=#true; forward auto=#false; }\nmachine \"f\" { internet 0; internet \"maybe\"; }\nlink \"a\" \"b\" delay=\"80ms\"\nlink \"a\" \"b\" { latency \"80ms\"; }\n";
    broken_foreign_egress: "project \"shop\"\ndefaults { box \"b\"; }\nmachine \"a\" { host-access #false; host-access none; host-access #true; host-access tcp=\"http\"; host-access { tcp 5432; }; }\nmachine \"b\" { egress { \"deb.debian.org\" \"*.example.com\"; }; }\nmachine \"c\" { egress { deb.debian.org; }; }\nmachine \"d\" { egress \"deb.debian.org\" \"*.example.com\"; }\nmachine \"e\" { egress none; }\nmachine \"f\" { egress #false; }\nmachine \"g\" { egress \"*\"; }\nmachine \"h\" { egress { allow 443; allow \"a.test\" port=443; allow tcp=443; }; }\n";
    broken_names_of_machines: "project \"10\"\ndefaults { box \"b\"; }\nnetwork \"backend-\"\nnetwork \"-x\"\nnetwork \"café\"\nmachine \"10\"\nmachine \"0x1f\"\nmachine \"localhost\"\nmachine \"7\" count=2\nmachine \"m\" { network \"default\" aliases=\"-a b- ü 10 0x1f localhost ok\"; }\n";
    broken_bridges_alone: "project \"shop\"\ndefaults { box \"b\"; internet #false; }\nnetwork \"lan\" bridge=\"br0\"\nnetwork \"wan\" bridge=\"br0\"\nmachine \"a\" { network \"lan\"; }\nmachine \"b\" { network \"lan\"; internet #true; }\nmachine \"c\" { network \"lan\"; internet #true; }\nlink \"b\" \"c\" loss=\"1%\"\nlink \"b\" loss=\"1%\"\nlink loss=\"1%\"\n";
    broken_lines: "project \"shop\"\ndefaults { box \"b\"; group \"x\"; }\nnetwork \"back\"\nmachine \"a\" { network \"back\" aliases \"pg\" \"x\"; network { \"back\"; }; forward { guest 80; host 8080; }; link \"a\" loss=\"1%\"; }\nmachine \"b\" { host-access \"https\"; egress { allow \"b.test\" 443; }; }\n";
    broken_user_data: "project \"shop\"\ndefaults { box \"b\"; }\nmachine \"a\" { user-data \"setup.sh\"; }\nmachine \"b\" { user-data \"empty.sh\"; }\nmachine \"c\" { user-data \"src\"; }\n";
    broken_variables: "project \"shop\"\nmachine \"web\" {\n    box \"${env.NOPE}\"\n    hostname \"${env.BOX\"\n    accel \"kmv\"\n    provision \"p\" run=\"sometimes\" { shell \"setup.sh\"; }\n}\nconnect \"session\"\ncpus 2\n";
}

#[test]
fn what_is_not_text_in_utf_8_is_one_error() {
    for (bytes, message) in [
        (&b"\xff\xfeb\0o\0x\0"[..], "this file is UTF-16, not UTF-8"),
        (
            b"b\0o\0x\0 \0\"\0x\0\"\0\n\0",
            "this looks like UTF-16, not like KDL",
        ),
        (b"project \"caf\xe9\"\n", "this is not valid UTF-8"),
        (
            b"\0\0\x01\x02\x03\x04",
            "this looks like a binary file, not like KDL",
        ),
    ] {
        let folder = project("");
        fs::write(folder.path().join(MACHINEFILE), bytes).unwrap();
        let errors = loaded(folder.path()).unwrap_err();
        assert_eq!(errors.count(), 1);
        assert!(errors.to_string().ends_with(message), "{errors}");
    }
}

/// What may be in the file that could not be read is not missing.
#[test]
fn a_mistake_in_an_included_file_is_one_error() {
    let folder = project(
        "project \"shop\"\ninclude \"db.kdl\"\nmachine \"web\" { box \"b\"; depends-on \"db\"; }\n",
    );
    fs::write(
        folder.path().join("db.kdl"),
        "machine \"db\" {\n    box = \"b\"\n}\n",
    )
    .unwrap();
    let errors = loaded(folder.path()).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "db.kdl:2:9: `box` takes its value without `=`"
    );
}

/// A file of 1 MiB has half a million errors, or one line.
#[test]
fn errors_without_end_are_shown_within_bounds() {
    let folder = project(&"x\n".repeat(20_000));
    let errors = loaded(folder.path()).unwrap_err();
    assert_eq!(errors.count(), 20_001);
    let text = rendered(&errors, folder.path());
    assert!(text.ends_with("and 19971 more errors\n"), "{}", text.len());
    assert!(text.len() < 100_000);

    let long = format!(
        "project \"shop\"; machine \"web\" {{ {}box = \"b",
        "cpus 2; ".repeat(10_000)
    );
    let folder = project(&long);
    let errors = loaded(folder.path()).unwrap_err();
    let text = rendered(&errors, folder.path());
    assert!(text.contains("Machinefile:1:80037"), "{text}");
    assert!(text.contains("cpus 2; box = \"b"), "{text}");
    assert!(text.len() < 5_000, "{}", text.len());
}

#[test]
fn a_whole_machinefile_is_read() {
    let folder = project(
        r#"
project "shop"
connect "qemu:///session"
defaults { box "${env.BOX}"; memory "512MiB"; labels env="dev"; }
machine "db" {
    cpus 2
    disk "20GiB"
    kernel { path "../linux" config="c"; cmdline "quiet" replace=#true; }
    hostname "db.shop.test"
    internet #false
    ready { tcp 5432; exec "true"; timeout "90s"; }
}
machine "web" count=2 {
    depends-on "db"
    labels role="front"
    forward 8080 to=80
    sync "src" to="/srv/shop/" delete=#false { exclude ".git" "target"; }
    provision "app" run="always" {
        shell "setup.sh" "one" user="postgres" { args "two"; env A="1"; }
    }
    provision "conf" { file "setup.sh" to="/etc/x" mode="0640" owner="root:adm"; }
    provision "in" { shell inline="echo $${env.HOME} ${HOME}" privileged=#false; }
}
"#,
    );
    let project = loaded(folder.path()).unwrap();
    let names: Vec<&str> = project.machines.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["db", "web-1", "web-2"]);
    let db = &project.machines[0];
    assert_eq!(
        (db.cpus, db.memory, db.disk),
        (2, Bytes(512 << 20), Some(Bytes(20 << 30)))
    );
    assert_eq!(db.box_ref, "debian-12");
    assert_eq!(db.ready.tcp, [5432]);
    assert!(!db.internet && project.machines[1].internet);
    let kernel = db.kernel.as_ref().unwrap();
    assert_eq!(
        kernel.source,
        KernelSource::Path {
            image: folder.path().canonicalize().unwrap().join("../linux"),
            modules: None,
            config: Some(folder.path().canonicalize().unwrap().join("c")),
        }
    );
    assert!(kernel.cmdline.as_ref().unwrap().replace);
    assert!(kernel.at.ends_with("Machinefile:8:5"), "{}", kernel.at);
    let web = &project.machines[2];
    assert_eq!(web.depends_on, ["db"]);
    assert_eq!(web.forwards, [Forward::tcp(8081, 80)]);
    assert_eq!(web.syncs[0].to, "/srv/shop");
    assert!(!web.syncs[0].delete);
    assert_eq!(web.labels.len(), 2);
    let ProvisionerKind::Shell(shell) = &web.provisioners[0].kind else {
        panic!("no shell");
    };
    assert_eq!(shell.run.args, ["one", "two"]);
    assert_eq!(shell.user.as_deref(), Some("postgres"));
    assert!(!shell.privileged);
    let ProvisionerKind::Shell(shell) = &web.provisioners[2].kind else {
        panic!("no shell");
    };
    assert_eq!(
        shell.source,
        ScriptSource::Inline(Secret("echo ${env.HOME} ${HOME}".into()))
    );
}

#[test]
fn scripts_and_hooks_are_read() {
    let folder = project(
        r#"
project "shop"
defaults { box "b"; before "up" { host "make" "-C" "a b"; }; }
machine "a" {
    provision "p" run="changed" {
        shell "setup.sh" interpreter="python3 -u" workdir="/srv/app" sensitive=#true timeout="10m" {
            env TOKEN="s3cret"
        }
    }
    after "up" {
        host "./setup.sh" "one" { args "two"; env A="1"; }
        guest inline="true" user="postgres" timeout="5s"
    }
}
"#,
    );
    let project = loaded(folder.path()).unwrap();
    let a = &project.machines[0];
    assert_eq!(a.provisioners[0].run, RunPolicy::Changed);
    let ProvisionerKind::Shell(shell) = &a.provisioners[0].kind else {
        panic!("no shell");
    };
    assert_eq!(shell.run.interpreter.as_deref().unwrap(), ["python3", "-u"]);
    assert_eq!(shell.workdir.as_deref(), Some("/srv/app"));
    assert_eq!(shell.run.timeout.unwrap().as_secs(), 600);
    let [make, script, guest] = &a.hooks[..] else {
        panic!("{:?}", a.hooks);
    };
    assert_eq!(make.moment, Moment::BeforeUp);
    let HookRuns::Host(make) = &make.runs else {
        panic!("not on the host");
    };
    assert_eq!(make.what, HostSource::Program("make".into()));
    assert_eq!(make.run.args, ["-C", "a b"]);
    let HookRuns::Host(script) = &script.runs else {
        panic!("not on the host");
    };
    assert!(matches!(
        script.what,
        HostSource::Script(ScriptSource::Path(_))
    ));
    assert_eq!(script.run.args, ["one", "two"]);
    let HookRuns::Guest(guest) = &guest.runs else {
        panic!("not in the guest");
    };
    assert!(!guest.privileged && guest.user.as_deref() == Some("postgres"));
    // Values that may be secret are not in it.
    let json = serde_json::to_string(&project).unwrap();
    assert!(!json.contains("s3cret") && json.contains("TOKEN"), "{json}");
    assert!(json.contains(r#""moment":"after-up""#), "{json}");
}

#[test]
fn playbooks_and_groups_are_read() {
    let folder = project(
        r#"
project "shop"
defaults { box "b"; vars region="${env.BOX}" level=1; }
machine "db" { labels role="db"; vars level=2.5 on=#true none=#null; }
machine "web" count=2 {
    provision "app" {
        ansible "setup.sh" become-user="www" verbosity=2 {
            vars n=-3; vars n=4 text="4"
            vars-file "@setup.sh"
            vault-password-file "~/pass" id="dev"
            vault-password-file "pass"
            groups "fronts"
        }
    }
    provision "in" { ansible-local "setup.sh" install="pip"; }
}
provision "site" run="always" { ansible "setup.sh" { limit "web" "prod"; }; }
provision "all" { ansible "setup.sh"; }
group "prod" { children "role_db"; vars x=1; }
"#,
    );
    fs::write(
        folder.path().join(LOCAL),
        "group \"prod\" { machines \"web-2\"; vars x=2; }\n",
    )
    .unwrap();
    let project = loaded(folder.path()).unwrap();
    let vars = |machine: usize| project.machines[machine].vars.to_json();
    assert_eq!(vars(0)["level"], 2.5);
    assert_eq!(vars(0)["region"], "debian-12");
    assert_eq!(
        (&vars(0)["on"], &vars(0)["none"]),
        (&true.into(), &serde_json::Value::Null)
    );
    assert_eq!(vars(1)["level"], 1);
    let playbook = project.machines[1].provisioners[0].kind.playbook().unwrap();
    assert_eq!(playbook.vars.to_json()["n"], 4);
    assert_eq!(playbook.vars.to_json()["text"], "4");
    assert!(playbook.r#become);
    assert_eq!(playbook.vault.len(), 2);
    assert_eq!(playbook.vars_files.len(), 1);
    assert!(playbook.at.ends_with("Machinefile:7:9"), "{}", playbook.at);
    assert_eq!(project.groups[0].machines, ["web-2"]);
    assert_eq!(project.groups[0].vars.to_json()["x"], 2);
    let over = |n: usize| project.provisioners[n].machines.join(" ");
    assert_eq!(over(0), "db web-1 web-2");
    assert_eq!(over(1), "db web-1 web-2");
    assert_eq!(project.provisioners[0].provisioner.run, RunPolicy::Always);
}

#[test]
fn a_local_file_lies_over() {
    let folder = project(
        "project \"shop\"\ninclude \"more.kdl\"\nmachine \"web\" { box \"a\"; cpus 1; forward 1000; }\n",
    );
    fs::write(
        folder.path().join("more.kdl"),
        "machine \"db\" { box \"b\"; }\n",
    )
    .unwrap();
    fs::write(
        folder.path().join(LOCAL),
        "connect \"qemu:///system\"\nmachine \"web\" { cpus 4; forward 2000; }\nmachine \"mine\" { box \"c\"; }\n",
    )
    .unwrap();
    let project = loaded(folder.path()).unwrap();
    assert_eq!(project.connect, Some(Libvirt::System));
    let web = project.machine("web").unwrap();
    assert_eq!(web.cpus, 4);
    assert_eq!(web.box_ref, "a");
    assert_eq!(web.forwards.len(), 2);
    assert!(project.machine("db").is_some() && project.machine("mine").is_some());
}

#[test]
fn a_box_by_path_is_the_file_that_the_path_leads_to_when_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().canonicalize().unwrap().join(name);
    fs::write(at("real.img"), "").unwrap();
    std::os::unix::fs::symlink("real.img", at("link.img")).unwrap();
    fs::write(
        at(MACHINEFILE),
        "project \"p\"\nmachine \"a\" { box \"./link.img\"; }\nmachine \"b\" { box \"./none.img\"; }\nmachine \"c\" { box \"debian-12\"; }\n",
    )
    .unwrap();
    let project = loaded(folder.path()).unwrap();
    let file = |name: &str| project.machine(name).unwrap().box_file.clone();
    assert_eq!(file("a"), Some(at("real.img")));
    assert_eq!(file("b"), Some(at("none.img")));
    assert_eq!(file("c"), None);
}

/// A libvirt URI can name a program to run or somebody else's daemon. Neither a Machinefile nor a
/// Machinefile.local, which a clone can bring too, may give one.
#[test]
fn a_project_connects_to_session_or_system_and_to_nothing_else() {
    for uri in [
        "qemu+ext:///session?command=./x",
        "qemu+ssh:///session?command=./x",
        "qemu+unix:///session?socket=/tmp/x/sock",
        "qemu+ssh://root@host/system",
        "qemu:///session?",
        "qemu:///session?command=./x",
        "qemu:///system/",
        "QEMU:///session",
        " qemu:///session",
        "qemu://localhost/session",
        "qemu:///embed?root=/tmp/x",
        "test:///default",
        "test:///tmp/x.xml",
        "lxc:///system",
        "an-alias",
        "",
    ] {
        for file in [MACHINEFILE, LOCAL] {
            let folder = project("project \"shop\"\nmachine \"m\" { box \"b\"; }\n");
            let path = folder.path().join(file);
            let mut text = fs::read_to_string(&path).unwrap_or_default();
            text.push_str(&format!("connect {uri:?}\n"));
            fs::write(&path, text).unwrap();
            let said = loaded(folder.path()).unwrap_err().to_string();
            assert!(
                said.contains(&format!("{file}:")) && said.contains("connect"),
                "{uri}: {said}"
            );
        }
    }
    for (uri, libvirt) in [
        ("qemu:///session", Libvirt::Session),
        ("qemu:///system", Libvirt::System),
    ] {
        let folder = project(&format!(
            "project \"shop\"\nconnect {uri:?}\nmachine \"m\" {{ box \"b\"; }}\n"
        ));
        assert_eq!(loaded(folder.path()).unwrap().connect, Some(libvirt));
    }
}

#[test]
fn includes_that_circle_or_lead_out_are_errors() {
    let folder = project(
        "project \"shop\"\ninclude \"a.kdl\"\ninclude \"/etc/passwd\"\nmachine \"m\" { box \"b\"; }\n",
    );
    fs::write(folder.path().join("a.kdl"), "include \"Machinefile\"\n").unwrap();
    let said = loaded(folder.path()).unwrap_err().to_string();
    assert!(
        said.contains("a.kdl:1:9: Machinefile includes itself"),
        "{said}"
    );
    assert!(
        said.contains("Machinefile:3:9: /etc/passwd is outside of the project"),
        "{said}"
    );
}

#[test]
fn text_that_is_not_utf8_is_told() {
    let folder = project("");
    fs::write(folder.path().join(MACHINEFILE), b"project \"a\"\n\xff\n").unwrap();
    let said = loaded(folder.path()).unwrap_err().to_string();
    assert!(
        said.contains("Machinefile:2:1: this is not valid UTF-8"),
        "{said}"
    );
}

#[test]
fn windows_line_ends_and_a_mark_are_fine() {
    let folder = project("\u{feff}project \"shop\"\r\nmachine \"web\" {\r\n  box \"b\"\r\n}\r\n");
    assert_eq!(loaded(folder.path()).unwrap().machines.len(), 1);
}

#[test]
fn tuning_belongs_to_its_node() {
    let folder = project(
        "project \"shop\"\nhost-reserve cpus=2 memory=\"3GiB\"\ndefaults { box \"b\"; cpus 4 reserve=#true pin=\"0-3\"; disk \"9GiB\" iops=5; }\nmachine \"a\"\nmachine \"b\" { cpus 2 shares=7 quota=\"150%\" cores=2; memory \"1GiB\" max=\"2GiB\"; disk \"9GiB\" throughput=\"1MiB/s\" preallocate=#true; }\n",
    );
    fs::write(folder.path().join(LOCAL), "host-reserve cpus=0\n").unwrap();
    let project = loaded(folder.path()).unwrap();
    assert_eq!(project.host_reserve.cpus, Some(0));
    assert_eq!(project.host_reserve.memory, None);
    let a = &project.machines[0].tuning;
    assert!(a.cpu.reserve && !a.memory.reserve);
    assert_eq!(a.cpu.pin.as_ref().unwrap().to_string(), "0-3");
    assert_eq!(a.disk.iops, Some(5));
    // A node of a machine replaces the whole node of the defaults.
    let b = &project.machines[1].tuning;
    assert!(!b.cpu.reserve && b.cpu.pin.is_none());
    assert_eq!((b.cpu.shares, b.cpu.quota), (Some(7), Some(150)));
    assert_eq!(b.cpu.topology.unwrap().cores, 2);
    assert_eq!(b.memory.max, Some(Bytes(2 << 30)));
    assert_eq!(b.disk.iops, None);
    assert_eq!(b.disk.throughput, Some(Bytes(1 << 20)));
    assert!(b.disk.preallocate);
}

#[test]
fn machines_that_name_no_network_share_one() {
    let networks = |text: &str| {
        let text = format!(
            "project \"shop\"\n{}{text}",
            if text.contains("defaults") {
                ""
            } else {
                "defaults { box \"b\"; }\n"
            }
        );
        let folder = project(&text);
        let project = loaded(folder.path()).unwrap();
        let mut lines: Vec<String> = (project.networks.iter())
            .map(|it| format!("{} {}", it.name, it.subnet))
            .collect();
        for machine in &project.machines {
            let of: Vec<String> = (machine.networks.iter())
                .map(|it| {
                    let address = it.address.map(|it| format!(" {it}")).unwrap_or_default();
                    format!("{}{address} {}", it.name, it.aliases.join(","))
                })
                .collect();
            lines.push(format!("{}: {}", machine.name, of.join("; ")));
        }
        lines
    };
    assert_eq!(networks("machine \"a\""), ["a: "]);
    // It says so itself.
    let named = networks("machine \"a\" { network \"default\" aliases=\"x\"; }");
    assert_eq!(named[1..], ["a: default x"]);
    let two = networks("machine \"a\"\nmachine \"b\"\nmachine \"c\" { network none=#true; }");
    assert!(two[0].starts_with("default 10."), "{two:?}");
    assert_eq!(two[1..], ["a: default ", "b: default ", "c: "]);
    let all = networks(
        "network \"back\" subnet=\"10.77.0.0/24\"\n\
         machine \"a\" count=2 { network \"back\" address=\"10.77.0.10\" aliases=\"x y\"; }\n\
         machine \"b\" { network \"back\"; network \"default\"; }\nmachine \"c\"",
    );
    assert!(all[1].starts_with("default 10."), "{all:?}");
    assert_eq!(all[0], "back 10.77.0.0/24");
    assert_eq!(
        all[2..],
        [
            "a-1: back 10.77.0.10 x,y",
            "a-2: back 10.77.0.11 x,y",
            "b: back ; default ",
            "c: default "
        ]
    );
    // What a machine says of a network replaces what the defaults say of it.
    let replaced = networks(
        "defaults { box \"b\"; network \"n\" aliases=\"d\"; }\nnetwork \"n\"\nnetwork \"m\"\n\
         machine \"a\" { network \"n\" aliases=\"own\"; network \"m\"; }\nmachine \"b\"\n\
         machine \"c\" { network none=#true; }",
    );
    assert_eq!(replaced[2..], ["a: n own; m ", "b: n d", "c: "]);
}

#[test]
fn links_are_about_machines_of_one_network() {
    let folder = project(
        "project \"shop\"\ndefaults { box \"b\"; }\nmachine \"web\" count=2\nmachine \"db\"\n\
         link latency=\"1ms\"\nlink \"web\" \"db\" latency=\"80ms\" jitter=\"10ms\" loss=\"0.5%\" rate=\"10mbit\"\n\
         link \"web\" \"web\" loss=\"1%\"\nlink \"web-2\" network=\"default\" one-way=#true rate=\"none\"\n",
    );
    fs::write(
        folder.path().join(LOCAL),
        "link \"db\" \"web\" latency=\"0ms\"\n",
    )
    .unwrap();
    let links: Vec<String> = (loaded(folder.path()).unwrap().links.iter())
        .map(|rule| format!("{}: {}", rule.scope, rule.settings))
        .collect();
    assert_eq!(
        links,
        [
            "all ↔ all: latency 1ms",
            "web-1, web-2 ↔ db: latency 80ms, jitter 10ms, loss 0.5%, rate 10mbit",
            "web-1, web-2 ↔ web-1, web-2: loss 1%",
            "web-2 → all on default: rate none",
            "db ↔ web-1, web-2: latency 0ms",
        ]
    );
    // A project of one machine has no links.
    assert!(
        broken("project \"shop\"\nmachine \"a\" { box \"b\"; }\nlink \"a\" loss=\"1%\"\n")
            .contains("no link")
    );
    let many = "link loss=\"1%\"\n".repeat(257);
    let text =
        format!("project \"shop\"\ndefaults {{ box \"b\"; }}\nmachine \"a\" count=2\n{many}");
    assert!(broken(&text).contains("at most 256"));
}

#[test]
fn an_alias_is_one_label() {
    for (alias, good) in [
        ("pg", true),
        ("github.com", false),
        ("*", false),
        ("a b.c", false),
    ] {
        let folder = project(&format!(
            "project \"shop\"\ndefaults {{ box \"b\"; }}\nnetwork \"n\"\n\
             machine \"a\" {{ network \"n\" aliases=\"{alias}\"; }}"
        ));
        assert_eq!(loaded(folder.path()).is_ok(), good, "{alias}");
    }
}

#[test]
fn the_template_and_the_example_are_valid() {
    let folder = project(&template("shop"));
    loaded(folder.path()).unwrap();
    let text = template("shop");
    assert_eq!(format(&text, "t").unwrap(), text);

    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("Machinefile.example");
    let project = load(&example, &|_| None).unwrap();
    assert!(project.machines.len() >= 2);
    // It shows every node.
    let text = fs::read_to_string(&example).unwrap();
    for node in decode::MACHINE.iter().chain(&[
        "project",
        "connect",
        "catalogue",
        "host-reserve",
        "defaults",
        "include",
        "group",
        "network",
    ]) {
        assert!(text.contains(&format!("{node} ")), "{node} is not shown");
    }
}

#[test]
fn formatting_keeps_comments_and_settles() {
    let text = "project   \"shop\"\n// why\nmachine \"web\"   { box \"b\" /* c */;cpus 2\n/-memory \"1GiB\"\n // end\n}\n";
    let once = format(text, "t").unwrap();
    for kept in ["// why", "/-memory", "// end", "/* c */"] {
        assert!(once.contains(kept), "{kept} is lost:\n{once}");
    }
    assert_eq!(format(&once, "t").unwrap(), once);
    assert!(format("project \"", "t").is_err());
}

/// A comment on a line of its own, indented as its neighbours are, is where it belongs already.
#[test]
fn formatting_leaves_comments_where_they_are() {
    let text = "\
// first
project \"shop\"

machine \"web\" {
    box \"b\"
    sync \".\" to=\"/srv\" {
        exclude \"a\"
    }
    /- provision \"x\" {
        shell inline=\"a\"
    }
    cpus 2
}
machine \"db\" {
}
";
    assert_eq!(format(text, "t").unwrap(), text);
    let lines: Vec<&str> = text.lines().collect();
    let depth = |line: &str| line.len() - line.trim_start().len();
    for (n, comment) in (0..=lines.len()).flat_map(|n| {
        [
            "// one",
            "/* two */",
            "// three\n// four",
            "// five\n\n// six",
        ]
        .map(|comment| (n, comment))
    }) {
        // What is commented out keeps its lines as they are, and what is after it in the block.
        if (9..=10).contains(&n) {
            continue;
        }
        let indent = match lines.get(n) {
            Some(next) if next.trim() == "}" => depth(next) + 4,
            Some(next) => depth(next),
            None => 0,
        };
        let comment: Vec<String> = (comment.lines())
            .map(|line| match line {
                "" => String::new(),
                line => format!("{:indent$}{line}", ""),
            })
            .collect();
        let mut commented: Vec<&str> = lines.clone();
        commented.splice(n..n, comment.iter().map(String::as_str));
        let commented = commented.join("\n") + "\n";
        assert_eq!(format(&commented, "t").unwrap(), commented);
    }
}

/// Wherever a comment is, it stays, and the file means the same.
#[test]
fn formatting_loses_no_comment() {
    let text = "project \"shop\"\nmachine \"web\" count=2 {\n  box \"b\"; cpus 2\n  sync \".\" to=\"/srv\" { exclude \"a\" }\n}\n";
    let meaning = |text: &str| {
        let mut document = kdl::KdlDocument::parse(text).unwrap();
        document.clear_format_recursive();
        document.to_string()
    };
    let mut valid = 0;
    for at in 0..=text.len() {
        for comment in [" /* kept */ ", "/*kept*/", " // kept\n", " \\ // kept\n"] {
            let commented = format!("{}{comment}{}", &text[..at], &text[at..]);
            // In the middle of a word it is no comment, or is not valid.
            let Ok(formatted) = format(&commented, "t") else {
                continue;
            };
            if kdl::KdlDocument::parse(&commented).is_err() {
                continue;
            }
            valid += 1;
            assert!(
                formatted.contains("kept"),
                "{commented}\nbecame\n{formatted}"
            );
            assert_eq!(
                meaning(&formatted),
                meaning(&commented),
                "{commented}\nbecame\n{formatted}"
            );
            assert_eq!(format(&formatted, "t").unwrap(), formatted, "{commented}");
        }
    }
    assert!(valid > 200, "{valid}");
}

#[test]
fn formatting_moves_comments_to_their_blocks() {
    let text = "machine \"a\" { // of a\n}\nmachine \"b\" { box \"c\" // of c\n  // one\n\n\n // two\n}\n  // end";
    let formatted = "machine \"a\" {\n    // of a\n}\nmachine \"b\" {\n    box \"c\" // of c\n    // one\n\n    // two\n}\n// end\n";
    assert_eq!(format(text, "t").unwrap(), formatted);
    assert_eq!(format(formatted, "t").unwrap(), formatted);
}

/// Each machine gets a port of its own, whoever boots first.
#[test]
fn machines_that_forward_one_port_get_the_next_ones() {
    let ports = |text: &str| {
        let folder = project(&format!("project \"p\"\ndefaults {{ box \"b\"; }}\n{text}"));
        let project = loaded(folder.path())?;
        let words = |machine: &Machine| {
            let ports: Vec<String> = (ForwardRange::all_of(&machine.forwards).iter())
                .map(ToString::to_string)
                .collect();
            format!("{} {}", machine.name, ports.join(" "))
        };
        Ok::<_, MachinefileErrors>(project.machines.iter().map(words).collect::<Vec<_>>())
    };
    let auto = "auto-correct=#true";
    assert_eq!(
        ports(&format!(
            "machine \"a\" {{ forward 8080 to=80 {auto}; }}\nmachine \"b\" {{ forward 8080 to=80 {auto}; }}\n\
             machine \"c\" {{ forward 8081 to=80; }}\nmachine \"d\" count=2 {{ forward \"8080-8081\" {auto}; }}\n\
             machine \"e\" {{ forward 8080 protocol=\"udp\"; forward 8080 address=\"127.0.0.2\" {auto}; }}\n"
        ))
        .unwrap(),
        [
            "a 8080→80",
            "b 8082→80",
            "c 8081→80",
            "d-1 8083-8084→8080-8081",
            "d-2 8085-8086→8080-8081",
            "e 8080→8080/udp 127.0.0.2:8080→8080",
        ]
    );
    // The one that must have it has it, also if it comes later.
    assert_eq!(
        ports(&format!(
            "machine \"a\" {{ forward 8080 {auto}; }}\nmachine \"b\" {{ forward 8080; }}\n"
        ))
        .unwrap(),
        ["a 8081→8080", "b 8080→8080"]
    );
    for wrong in [
        "machine \"a\" { forward 8080; }\nmachine \"b\" { forward 8080; }\n".to_string(),
        format!("machine \"a\" {{ forward 8080 {auto}; forward 8080 to=80 {auto}; }}\n"),
    ] {
        assert_eq!(ports(&wrong).unwrap_err().count(), 1, "{wrong}");
    }
}

/// As the documentation has them: `machine "db" { network "backend"; }`.
#[test]
fn formatting_keeps_short_nodes_on_one_line() {
    let formatted = |text: &str| {
        let once = format(text, "t").unwrap();
        assert_eq!(format(&once, "t").unwrap(), once);
        once
    };
    assert_eq!(
        formatted(
            "machine   \"db\"  {network \"a\"   address=\"10.77.0.10\" ; cpus 2}  // why\nmachine \"web\" {}\n"
        ),
        "machine \"db\" { network \"a\" address=\"10.77.0.10\"; cpus 2; } // why\nmachine \"web\" { }\n"
    );
    assert_eq!(
        formatted(
            "machine \"db\" {\nprovision \"a\" { shell \"x.sh\" { args \"//\" } }\nsync \".\" to=\"/x\" {\n exclude \"a\" }\n}\n"
        ),
        "machine \"db\" {\n    provision \"a\" { shell \"x.sh\" { args \"//\"; }; }\n    sync \".\" to=\"/x\" {\n        exclude \"a\"\n    }\n}\n"
    );
    assert_eq!(
        formatted("machine \"db\" { cpus 2 /* c */; box \"b\"; }\n"),
        "machine \"db\" {\n    cpus 2 /* c */\n    box \"b\"\n}\n"
    );
    let of_length = |length: usize| {
        let line = "machine \"a\" { box \"\"; }";
        let name = "b".repeat(length - line.len());
        format!("{}{name}\"; }}\n", line.trim_end_matches("\"; }"))
    };
    assert_eq!(formatted(&of_length(100)), of_length(100));
    assert!(formatted(&of_length(101)).starts_with("machine \"a\" {\n    box \"b"));
}

/// Whatever is in the file, it is read or refused, never a panic.
#[test]
fn mutilated_files_never_panic() {
    let text = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("Machinefile.example")).unwrap();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    let folder = project("");
    let noise: [&[u8]; 12] = [
        b"\"",
        b"{",
        b"}",
        b"=",
        b"#",
        b"\\",
        b"\n",
        b"/-",
        b"${env.",
        "ü→".as_bytes(),
        b"\xff",
        b"99999999999999999999999999",
    ];
    for _ in 0..400 {
        let mut bytes = text.clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(3) {
                0 => {
                    bytes.remove(at);
                }
                1 => {
                    let end = (at + random(40)).min(bytes.len());
                    bytes.drain(at..end);
                }
                _ => {
                    let word = noise[random(noise.len())];
                    bytes.splice(at..at, word.iter().copied());
                }
            }
        }
        fs::write(folder.path().join(MACHINEFILE), &bytes).unwrap();
        if let Err(errors) = loaded(folder.path()) {
            assert!(errors.count() > 0);
            rendered(&errors, folder.path());
            let _ = errors.to_string();
        }
        if let Ok(formatted) = format(&String::from_utf8_lossy(&bytes), "t") {
            assert_eq!(format(&formatted, "t").unwrap(), formatted);
        }
    }
}

/// QEMU would follow whatever a guest has put there by the time that it starts.
#[test]
fn a_9p_folder_below_one_that_a_guest_writes_is_refused() {
    let text = |above: &str, below: &str| {
        format!(
            "project \"shop\"\ndefaults {{ box \"debian-12\"; }}\nmachine \"a\" {{ sync \".\" to=\"/srv/a\" {above}; }}\nmachine \"b\" {{ sync \"src\" to=\"/srv/b\" {below}; }}\n"
        )
    };
    for above in ["type=\"virtiofs\"", "type=\"auto\"", "mode=\"two-way\""] {
        let said = broken(&text(above, "type=\"9p\""));
        assert!(said.contains("which machine a can write to"), "{said}");
        assert!(said.contains("Machinefile:4:"), "{said}");
    }
    for (above, below) in [
        ("type=\"virtiofs\" readonly=#true", "type=\"9p\""),
        ("type=\"rsync\"", "type=\"9p\""),
        ("type=\"virtiofs\"", "type=\"virtiofs\""),
    ] {
        loaded(project(&text(above, below)).path()).unwrap();
    }
}

#[test]
fn forwards_have_protocols_addresses_and_ranges() {
    let folder = project(
        r#"
project "shop"
defaults { box "b"; }
machine "dns" {
    forward 5353 to=53
    forward 5353 to=53 protocol="udp" address="0.0.0.0" auto-correct=#true
    forward 5353 address="127.0.0.2"
}
machine "web" count=2 { forward "8000-8002" to="9000-9002"; forward 8100 to=80; }
"#,
    );
    let loaded = loaded(folder.path()).unwrap();
    let shown: Vec<Vec<String>> = (loaded.machines.iter())
        .map(|machine| {
            let ranges = ForwardRange::all_of(&machine.forwards);
            ranges.iter().map(ToString::to_string).collect()
        })
        .collect();
    assert_eq!(
        shown,
        [
            vec!["5353→53", "0.0.0.0:5353→53/udp", "127.0.0.2:5353→5353"],
            vec!["8000-8002→9000-9002", "8100→80"],
            // The next machine of a `count` has the ports after those of the one before.
            vec!["8003-8005→9000-9002", "8101→80"],
        ]
    );
    let corrected: Vec<bool> = (loaded.machines[0].forwards.iter())
        .map(|forward| forward.auto_correct)
        .collect();
    assert_eq!(corrected, [false, true, false]);
    let last = loaded.machines[2].forwards[1].host_port();
    let span = loaded.machines[2].spans.port(last).unwrap();
    assert_eq!(span.text(), "Machinefile:9:33");
}

#[test]
fn a_machine_forwards_a_bounded_number_of_ports() {
    let ranges = |n: u32| {
        let nodes: String = (0..n)
            .map(|n| format!("forward \"{}-{}\"; ", 10_000 + n * 100, 10_063 + n * 100))
            .collect();
        format!("project \"p\"\nmachine \"a\" count=2 {{ box \"b\"; {nodes} }}\n")
    };
    let folder = project(&ranges(4).replace(" count=2", ""));
    assert_eq!(
        loaded(folder.path()).unwrap().machines[0].forwards.len(),
        256
    );
    let folder = project(&ranges(5).replace(" count=2", ""));
    let errors = loaded(folder.path()).unwrap_err();
    assert_eq!(errors.count(), 1);
    assert!(
        errors
            .to_string()
            .contains("a forwards more than 256 ports"),
        "{errors}"
    );
}
