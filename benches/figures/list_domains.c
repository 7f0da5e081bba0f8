// The least that a program can do to see what a libvirt has: what `stead status` is measured against.

#include <libvirt/libvirt.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    virDomainPtr *domains;
    virConnectPtr connection = argc == 2 ? virConnectOpen(argv[1]) : NULL;
    if (!connection)
        return 1;
    int count = virConnectListAllDomains(connection, &domains, 0);
    if (count < 0)
        return 1;
    for (int i = 0; i < count; i++) {
        puts(virDomainGetName(domains[i]));
        virDomainFree(domains[i]);
    }
    free(domains);
    virConnectClose(connection);
    return 0;
}
