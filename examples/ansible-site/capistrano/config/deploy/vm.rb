server "web", roles: %w[app], ssh_options: { config: File.expand_path("../../.stead-ssh", __dir__) }
